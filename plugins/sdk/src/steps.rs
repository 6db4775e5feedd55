//! Progress that operators see while a verb runs.

use crate::viworks::gateway::progress;

/// Counts steps and reports each.
#[derive(Debug)]
pub struct Progress {
    done: u32,
    total: Option<u32>,
}

impl Progress {
    /// Of a known number of steps.
    #[must_use]
    pub fn of(total: usize) -> Self {
        Self { done: 0, total: u32::try_from(total).ok() }
    }

    /// Of a number of steps that nobody knows yet.
    #[must_use]
    pub fn open() -> Self {
        Self { done: 0, total: None }
    }

    /// One more step is done.
    pub fn step(&mut self, message: &str) {
        self.done = self.done.saturating_add(1);
        progress::report(self.done, self.total, message);
    }
}
