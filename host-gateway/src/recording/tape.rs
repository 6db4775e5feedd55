//! One invocation's events: what it called and was answered, what its clocks and random
//! source gave. Recorded up to a bound, or played back. A call that differs from the
//! recorded one ends the replay there: that is the departure.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::redact::Secrets;

/// One thing that came from outside the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    Call {
        name: String,
        args: Vec<Value>,
        /// Absent: the call ended the invocation (a limit, a cancel).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Value>,
        /// Effects that it made.
        #[serde(default, skip_serializing_if = "is_zero")]
        effects: u32,
    },
    /// Nanoseconds since 1970.
    Wall(u64),
    /// Nanoseconds since some time.
    Monotonic(u64),
    /// Hex.
    Random(String),
}

/// Where a replay left the recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Departure {
    /// The how-manieth host call, from 1.
    pub at: u32,
    /// What was recorded there; `None`: the recording has no more calls.
    pub recorded: Option<Value>,
    /// What was called instead; `None`: it ended without this call.
    pub called: Option<Value>,
}

/// Events, recorded or to be played.
#[derive(Debug)]
pub struct Tape {
    events: VecDeque<Event>,
    playing: bool,
    room: usize,
    truncated: bool,
    secrets: Secrets,
    calls: u32,
    effects: u32,
    departed: Option<Departure>,
    /// A call was played that ended the recorded invocation.
    ended: bool,
}

/// Shared by one invocation's gate, clocks and random source, and its keeper.
#[derive(Debug, Clone)]
pub struct TapeHandle(Arc<Mutex<Tape>>);

/// Ends the replayed invocation.
#[derive(Debug, thiserror::Error)]
#[error("the replay departs from the recording")]
pub struct Departed;

impl Tape {
    /// To record on, at most about so many bytes.
    #[must_use]
    pub fn blank(max_bytes: usize) -> TapeHandle {
        Self::handle(VecDeque::new(), false, max_bytes)
    }

    /// To play.
    #[must_use]
    pub fn recorded(events: Vec<Event>) -> TapeHandle {
        Self::handle(events.into(), true, usize::MAX)
    }

    fn handle(events: VecDeque<Event>, playing: bool, room: usize) -> TapeHandle {
        let secrets = Secrets::default();
        let tape = Self {
            events,
            playing,
            room,
            truncated: false,
            secrets,
            calls: 0,
            effects: 0,
            departed: None,
            ended: false,
        };
        TapeHandle(Arc::new(Mutex::new(tape)))
    }

    fn push(&mut self, event: Event, bytes: usize) {
        match self.room.checked_sub(bytes) {
            Some(left) if !self.truncated => {
                self.room = left;
                self.events.push_back(event);
            }
            _ => self.truncated = true,
        }
    }

    /// The next event, if it is such a one; others of clock and random are passed over, so
    /// that a version that reads the clock once less still meets its calls.
    fn next<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let at = self.events.iter().take_while(|e| !matches!(e, Event::Call { .. })).position(|e| wanted(e).is_some());
        at.and_then(|at| self.events.remove(at)).and_then(|event| wanted(&event))
    }

    fn next_call(&mut self) -> Option<Event> {
        while let Some(event) = self.events.pop_front() {
            if matches!(event, Event::Call { .. }) {
                return Some(event);
            }
        }
        None
    }
}

impl TapeHandle {
    /// Put a call on the tape; `Err`: it ended the invocation.
    pub(super) fn record(&self, name: &str, args: Vec<Value>, answer: Result<Value, &wasmtime::Error>, effects: u32) {
        let mut tape = self.lock();
        let answer = answer.ok();
        tape.secrets.find(name, &args, answer.as_ref());
        let bytes = 64 + size(&args) + answer.as_ref().map_or(0, size);
        tape.push(Event::Call { name: name.to_owned(), args, answer, effects }, bytes);
    }

    /// The recorded answer, if this is being played.
    pub(super) fn play(&self, name: &str, args: &[Value]) -> Option<wasmtime::Result<Value>> {
        let mut tape = self.lock();
        if !tape.playing {
            return None;
        }
        tape.calls += 1;
        let recorded = tape.next_call();
        // What is said to people is no departure.
        let lenient = matches!(name, "log.write" | "progress.report");
        if let Some(Event::Call { name: there, args: wanted, answer: Some(answer), effects }) = &recorded
            && there == name
            && (lenient || wanted.as_slice() == args)
        {
            tape.effects += effects;
            return Some(Ok(answer.clone()));
        }
        if matches!(&recorded, Some(Event::Call { name: there, answer: None, .. }) if there == name) {
            // A limit or a cancel ended it here; what came of that is the host's doing.
            tape.ended = true;
            return Some(Err(wasmtime::Error::new(Departed)));
        }
        let at = tape.calls;
        let recorded = match recorded {
            Some(Event::Call { name, args, .. }) => Some(json!({"call": name, "args": args})),
            _ => None,
        };
        let called = Some(json!({"call": name, "args": args}));
        tape.departed.get_or_insert(Departure { at, recorded, called });
        Some(Err(wasmtime::Error::new(Departed)))
    }

    /// A clock's reading: recorded, or the recorded one.
    pub(super) fn clock(&self, now: u64, wall: bool) -> u64 {
        let mut tape = self.lock();
        if tape.playing {
            let then = tape.next(|event| match event {
                Event::Wall(at) if wall => Some(*at),
                Event::Monotonic(at) if !wall => Some(*at),
                _ => None,
            });
            return then.unwrap_or(now);
        }
        tape.push(if wall { Event::Wall(now) } else { Event::Monotonic(now) }, 24);
        now
    }

    /// Random bytes: recorded, or the recorded ones.
    pub(super) fn random(&self, bytes: &mut [u8]) {
        let mut tape = self.lock();
        if tape.playing {
            let then = tape.next(|event| match event {
                Event::Random(hex) => hex::decode(hex).ok().filter(|then| then.len() == bytes.len()),
                _ => None,
            });
            if let Some(then) = then {
                bytes.copy_from_slice(&then);
            }
            return;
        }
        tape.push(Event::Random(hex::encode(&bytes)), 32 + 2 * bytes.len());
    }

    /// Whether recorded answers are given.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        self.lock().playing
    }

    /// What was recorded, with every secret replaced, and whether it was cut.
    #[must_use]
    pub fn take(&self) -> (Vec<Event>, bool) {
        let mut tape = self.lock();
        let events = std::mem::take(&mut tape.events);
        (events.into_iter().map(|event| tape.secrets.redact(event)).collect(), tape.truncated)
    }

    /// Replace the secrets that were found in another text or value.
    #[must_use]
    pub fn redact(&self, value: Value) -> Value {
        self.lock().secrets.redact_value(value)
    }

    /// Whether it came to the call that ended the recorded invocation.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// How many effects the calls made that were played.
    pub(super) fn effects_played(&self) -> u32 {
        self.lock().effects
    }

    /// Where the replay departed; also if recorded calls are left.
    #[must_use]
    pub fn departure(&self) -> Option<Departure> {
        let mut tape = self.lock();
        if tape.departed.is_none()
            && tape.playing
            && let Some(Event::Call { name, args, answer: Some(_), .. }) = tape.next_call()
        {
            let at = tape.calls + 1;
            let recorded = Some(json!({"call": name, "args": args}));
            tape.departed = Some(Departure { at, recorded, called: None });
        }
        tape.departed.clone()
    }

    /// Each change leaves the tape whole.
    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how many bytes a value takes.
fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
