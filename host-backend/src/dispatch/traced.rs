//! Commands that are traced: what was sent under which span, until its result comes. A view
//! that may be lost, bounded in commands and in invocations of each; for all others a look
//! at a counter.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::outcome::Report;
use viworks_protocol::trace::{MAX_TIMINGS, Timing, TraceContext};

use crate::spans::{Open, SpanKind, now_ns};

const MAX_COMMANDS: usize = 256;
/// Of one command: more would tell nothing new.
const MAX_INVOCATIONS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Traced {
    /// How many there are, so that nobody locks for nothing.
    count: AtomicUsize,
    commands: Mutex<Commands>,
}

#[derive(Debug, Default)]
struct Commands {
    by_id: HashMap<CommandId, Command>,
    order: VecDeque<CommandId>,
}

#[derive(Debug)]
struct Command {
    span: Open,
    sent: HashMap<InvocationId, Open>,
}

/// What a report says of how long things took, taken from it before it is stored.
#[derive(Debug, Default)]
pub(super) struct Told {
    timings: Vec<Timing>,
    /// Microseconds from its start to its end by the gateway's clock.
    lasted_us: u64,
    succeeded: bool,
    came_ns: u64,
}

impl Told {
    /// `None` where the gateway told no steps: then nobody asked.
    pub(super) fn of(report: &Report) -> Option<Self> {
        if report.timings.is_empty() {
            return None;
        }
        // A gateway's word: bounded, and only plain names.
        let plain = report.timings.iter().filter(|timing| timing.is_plain()).take(MAX_TIMINGS);
        let timings: Vec<Timing> = plain.cloned().collect();
        let ends = timings.iter().map(|t| t.at_us.saturating_add(t.took_us)).max().unwrap_or(0);
        let succeeded = report.outcome == viworks_protocol::outcome::Outcome::Succeeded;
        Some(Self { timings, lasted_us: ends, succeeded, came_ns: now_ns() })
    }
}

impl Traced {
    fn lock(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is sent of this command is sent under `span`.
    pub(super) fn keep(&self, command: &CommandId, span: Open) {
        let mut commands = self.lock();
        commands.by_id.insert(command.clone(), Command { span, sent: HashMap::new() });
        commands.order.push_back(command.clone());
        while commands.order.len() > MAX_COMMANDS {
            if let Some(oldest) = commands.order.pop_front() {
                commands.by_id.remove(&oldest);
            }
        }
        self.count.store(commands.by_id.len(), Ordering::Relaxed);
    }

    /// The context that goes with one invocation, if its command is traced.
    pub(super) fn deliver(
        &self,
        command: &CommandId,
        invocation: &InvocationId,
        agent: &AgentId,
    ) -> Option<TraceContext> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut commands = self.lock();
        let of = commands.by_id.get_mut(command)?;
        if of.sent.len() >= MAX_INVOCATIONS && !of.sent.contains_key(invocation) {
            return None;
        }
        let span = of.span.child("deliver").kind(SpanKind::Producer);
        let span = span.with("viworks.agent", agent.as_str()).with("viworks.invocation", invocation.as_str());
        let context = *span.context();
        of.sent.insert(invocation.clone(), span);
        Some(context)
    }

    /// A result was committed: its spans, and its gateway's steps below them. Their clock is
    /// not ours: they are set so that they end when the result came.
    pub(super) fn settled(&self, command: &CommandId, invocation: &InvocationId, told: &Told) {
        let Some(deliver) = self.lock().by_id.get_mut(command).and_then(|of| of.sent.remove(invocation)) else {
            return;
        };
        let lasted_ns = told.lasted_us.saturating_mul(1_000);
        let starts = told.came_ns.saturating_sub(lasted_ns).max(deliver.start_ns());
        let run = deliver.child("invocation").since(starts).failed(!told.succeeded);
        for timing in &told.timings {
            let at = starts.saturating_add(timing.at_us.saturating_mul(1_000));
            let span = run.child(timing.name.clone()).since(at).failed(timing.failed);
            span.end_at(at.saturating_add(timing.took_us.saturating_mul(1_000)));
        }
        let settle = deliver.child("settle").since(told.came_ns);
        settle.end();
        run.end_at(told.came_ns);
        deliver.end();
    }

    /// The command has ended.
    pub(super) fn forget(&self, command: &CommandId) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut commands = self.lock();
        if commands.by_id.remove(command).is_some() {
            commands.order.retain(|id| id != command);
        }
        self.count.store(commands.by_id.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::spans::Tracer;

    #[test]
    fn both_tables_are_bounded() {
        let Ok(endpoint) = "http://127.0.0.1:4318".parse() else { panic!("an endpoint") };
        let (tracer, _exporter) = Tracer::new(1.0, endpoint, Metrics::default());
        let Some(span) = tracer.request(None, || "POST /commands".into()) else { panic!("sampled") };
        let (traced, Ok(agent)) = (Traced::default(), "a".parse::<AgentId>()) else { panic!("an id") };
        let first = CommandId::new(1);
        traced.keep(&first, span.clone());
        let sent = (0..100_u32).filter(|n| {
            let Ok(invocation) = format!("inv-{n:032x}").parse() else { panic!("an id") };
            traced.deliver(&first, &invocation, &agent).is_some()
        });
        assert_eq!(sent.count(), MAX_INVOCATIONS);
        for n in 0..MAX_COMMANDS as u64 {
            traced.keep(&CommandId::new(n + 2), span.clone());
        }
        assert_eq!(traced.count.load(Ordering::Relaxed), MAX_COMMANDS);
        let Ok(invocation) = format!("inv-{:032x}", 7).parse() else { panic!("an id") };
        assert!(traced.deliver(&first, &invocation, &agent).is_none(), "the oldest went");
    }
}
