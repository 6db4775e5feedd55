//! `progress`: how far a verb is, for operators that watch it. Rate-limited, the newest
//! wins; a report that nobody has room for is dropped. Always granted.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use viworks_protocol::id::InvocationId;

use super::Call;
use super::wit::viworks::gateway::progress::Host;
use crate::executor::Event;

/// The least time between two reports of one invocation.
const INTERVAL: Duration = Duration::from_millis(250);

/// Longer messages are cut, so that the frame stays within its bound.
const MAX_MESSAGE: usize = 1024;

/// Where one invocation's progress goes.
#[derive(Debug)]
pub struct Progress {
    to: Option<(InvocationId, mpsc::Sender<Event>)>,
    sent: Option<Instant>,
    waiting: Option<(u32, Option<u32>, String)>,
}

impl Progress {
    /// Reports go nowhere.
    #[must_use]
    pub fn silent() -> Self {
        Self { to: None, sent: None, waiting: None }
    }

    /// Reports go to the executor's events.
    #[must_use]
    pub fn to(invocation: InvocationId, events: mpsc::Sender<Event>) -> Self {
        Self { to: Some((invocation, events)), ..Self::silent() }
    }

    /// Send the newest report if it is due.
    pub(crate) fn flush(&mut self) {
        if self.waiting.is_none() || self.sent.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        if let (Some((done, total, message)), Some((invocation, events))) = (self.waiting.take(), &self.to) {
            let event = Event::Progress { invocation: invocation.clone(), done, total, message };
            // Full or closed: progress is a courtesy, results are not sent this way.
            let _ = events.try_send(event);
            self.sent = Some(Instant::now());
        }
    }
}

impl Host for Call {
    async fn report(&mut self, done: u32, total: Option<u32>, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        let end = message.floor_char_boundary(MAX_MESSAGE);
        self.progress.waiting = Some((done, total, message[..end].to_owned()));
        self.progress.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_report_wins_within_an_interval() -> Result<(), viworks_protocol::id::IdError> {
        let (events, mut seen) = mpsc::channel(8);
        let mut progress = Progress::to(format!("inv-{}", "0".repeat(32)).parse()?, events);
        for done in 0..5 {
            progress.waiting = Some((done, None, String::new()));
            progress.flush();
        }
        assert!(matches!(seen.try_recv(), Ok(Event::Progress { done: 0, .. })));
        assert!(seen.try_recv().is_err());
        progress.sent = progress.sent.map(|at| at.checked_sub(INTERVAL).unwrap_or(at));
        progress.flush();
        assert!(matches!(seen.try_recv(), Ok(Event::Progress { done: 4, .. })));
        Ok(())
    }
}
