//! Ends that nobody reported: expired (never delivered), unknown (delivered, and no
//! result in time), cancelled (before delivery). What was queued when the store was
//! restored may have been delivered by the store that was lost: it ends as unknown. No SQL.

use std::collections::BTreeMap;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::{Outcome, Report};

use super::StoreError;
use super::lists::json;
use super::model::InvocationState;
use super::moves::{Delta, End};
use super::rows::RowExt;
use super::write::Expired;

pub(super) const COMMANDS_A_PASS: i64 = 64;
pub(super) const INVOCATIONS_A_PASS: i64 = 20_000;

/// The texts of reports that no gateway made.
pub(super) struct Texts {
    never: String,
    silent: String,
    restored: String,
    cancelled: String,
}

impl Texts {
    pub(super) fn new(now_ms: u64) -> Result<Self, StoreError> {
        let report = |outcome: Outcome, message| json(&Report::refused(outcome, outcome.as_str(), message, now_ms));
        Ok(Self {
            never: report(Outcome::Expired, "never delivered before it expired")?,
            silent: report(Outcome::Unknown, "delivered, and no result came in time")?,
            restored: report(Outcome::Unknown, "the store was restored meanwhile: it may have been delivered before")?,
            cancelled: report(Outcome::Cancelled, "cancelled before it was delivered")?,
        })
    }
}

#[derive(Clone, Copy)]
struct Times {
    /// No result is awaited after this.
    ends_ms: u64,
    last_seq: u64,
    /// Accepted by a store that was lost.
    restored: bool,
}

/// Commands whose time has come, by number.
pub(super) struct Due {
    times: BTreeMap<i64, Times>,
    full: bool,
    now_ms: u64,
}

/// What ends now.
#[derive(Default)]
pub(super) struct Ending<'a> {
    pub ends: Vec<End<'a>>,
    pub deltas: BTreeMap<i64, Delta>,
    pub out: Expired,
}

impl Due {
    /// Rows: `n`, `created_ms`, `expires_ms`, `timeout_secs`, `last_seq`.
    pub(super) fn of<R: RowExt>(rows: &[R], grace_ms: u64, restored_ms: u64, now_ms: u64) -> Result<Self, StoreError> {
        let mut times = BTreeMap::new();
        for row in rows {
            let ends_ms = row.number("expires_ms")? + row.number("timeout_secs")? * 1_000 + grace_ms;
            let restored = row.number("created_ms")? < restored_ms;
            times.insert(row.signed("n")?, Times { ends_ms, last_seq: row.number("last_seq")?, restored });
        }
        Ok(Self { times, full: rows.len() as i64 >= COMMANDS_A_PASS, now_ms })
    }

    /// `[command, state]` of those that end: one that may still answer must not fill the pass.
    pub(super) fn wanted(&self) -> Result<String, StoreError> {
        let of = self.times.iter().flat_map(|(n, t)| {
            let late = t.ends_ms <= self.now_ms;
            [(*n, "queued", true), (*n, "sent", late), (*n, "running", late)]
        });
        json(&of.filter(|(_, _, wanted)| *wanted).collect::<Vec<_>>())
    }

    /// Rows: `command`, `ordinal`, `state` of the wanted, [`INVOCATIONS_A_PASS`] at most.
    pub(super) fn end<'a, R: RowExt>(mut self, open: &[R], texts: &'a Texts) -> Result<Ending<'a>, StoreError> {
        let all = (open.len() as i64) < INVOCATIONS_A_PASS;
        let mut ending = Ending { out: Expired { more: !all || self.full, ..Expired::default() }, ..Ending::default() };
        for row in open {
            let (command, ordinal, from) = place(row)?;
            let Some(t) = self.times.get_mut(&command) else { continue };
            let (to, report) = match from {
                InvocationState::Queued if !t.restored => (InvocationState::Expired, &texts.never),
                InvocationState::Queued => (InvocationState::Unknown, &texts.restored),
                _ => (InvocationState::Unknown, &texts.silent),
            };
            *(if to == InvocationState::Expired { &mut ending.out.expired } else { &mut ending.out.unknown }) += 1;
            t.last_seq += 1;
            ending.deltas.entry(command).or_default().settled(from, to, t.last_seq);
            ending.ends.push(end(command, ordinal, to, t.last_seq, report, self.now_ms));
        }
        if all {
            for (n, t) in &self.times {
                ending.deltas.entry(*n).or_default().due(t.ends_ms.max(self.now_ms + 1));
            }
        }
        Ok(ending)
    }
}

/// What a cancellation ends here, and what has to be cancelled at agents.
pub(super) struct Cancelling<'a> {
    pub ends: Vec<End<'a>>,
    pub delta: Delta,
    pub in_flight: Vec<(AgentId, InvocationId)>,
}

/// Rows: `command`, `ordinal`, `state`, `id`, `agent` of the open invocations of a command
/// whose row is `of` (`created_ms`, `last_seq`, `finished_ms`).
pub(super) fn cancel<'a, R: RowExt>(
    of: &R,
    open: &[R],
    restored_ms: u64,
    texts: &'a Texts,
    now_ms: u64,
) -> Result<Cancelling<'a>, StoreError> {
    let (mut seq, restored) = (of.number("last_seq")?, of.number("created_ms")? < restored_ms);
    let (mut ends, mut in_flight, mut delta) = (Vec::new(), Vec::new(), Delta::default());
    let (to, report) = match restored {
        false => (InvocationState::Cancelled, &texts.cancelled),
        true => (InvocationState::Unknown, &texts.restored),
    };
    for row in open {
        let (command, ordinal, from) = place(row)?;
        if from != InvocationState::Queued {
            in_flight.push((row.parsed("agent")?, row.parsed("id")?));
            continue;
        }
        seq += 1;
        delta.settled(from, to, seq);
        ends.push(end(command, ordinal, to, seq, report, now_ms));
    }
    if of.maybe_number("finished_ms")?.is_none() {
        delta.cancel();
    }
    Ok(Cancelling { ends, delta, in_flight })
}

fn end(command: i64, ordinal: i64, state: InvocationState, seq: u64, report: &str, finished_ms: u64) -> End<'_> {
    End { command, ordinal, state, seq, report, plan: None, started_ms: None, finished_ms }
}

fn place(row: &impl RowExt) -> Result<(i64, i64, InvocationState), StoreError> {
    Ok((row.signed("command")?, row.signed("ordinal")?, row.parsed("state")?))
}
