//! How long the steps of one invocation take, for its trace: bounded, kept only where the
//! order came with a sampled trace, and otherwise no more than a look at an empty option.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use viworks_protocol::trace::{MAX_TIMINGS, Timing, TraceContext};

/// A handle; clones add to the same list. The default keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Timings(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    came: Instant,
    steps: Mutex<Vec<Timing>>,
}

impl Timings {
    /// What the backend says of the trace decides nothing else.
    #[must_use]
    pub fn of(trace: Option<&TraceContext>) -> Self {
        let sampled = trace.is_some_and(|trace| trace.sampled);
        Self(sampled.then(|| Arc::new(Kept { came: Instant::now(), steps: Mutex::default() })))
    }

    /// The begin of a step; `None` where nothing is kept.
    #[must_use]
    pub fn start(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    /// The end of a step that began with [`Timings::start`].
    pub fn end(&self, name: &str, began: Option<Instant>, failed: bool) {
        let (Some(kept), Some(began)) = (&self.0, began) else { return };
        let took = began.elapsed();
        let mut steps = kept.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() < MAX_TIMINGS {
            let at_us = us(began.saturating_duration_since(kept.came));
            steps.push(Timing { name: name.to_owned(), at_us, took_us: us(took), failed });
        }
    }

    /// All steps so far, in the order of their ends.
    #[must_use]
    pub fn take(&self) -> Vec<Timing> {
        let Some(kept) = &self.0 else { return Vec::new() };
        std::mem::take(&mut *kept.steps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_unless_sampled_and_then_so_much() {
        let mut context = TraceContext { trace: [1; 16], span: [2; 8], sampled: false };
        for off in [Timings::of(None), Timings::of(Some(&context))] {
            off.end("a", off.start(), false);
            assert!(off.start().is_none() && off.take().is_empty());
        }
        context.sampled = true;
        let timings = Timings::of(Some(&context));
        for _ in 0..1_000 {
            timings.end("accounts.list", timings.start(), true);
        }
        let steps = timings.take();
        assert!(steps.len() == MAX_TIMINGS && steps.iter().all(|s| s.failed && s.is_plain()));
    }
}
