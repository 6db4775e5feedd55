//! How many frames of each kind the backend may send in a minute of one session. Refuses
//! the first one beyond.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use viworks_protocol::chunk;
use viworks_protocol::frame::{BackendFrame, Bounds};

use super::incoming::FrameError;

const WINDOW: Duration = Duration::from_secs(60);

/// Counts since the window began: one entry for each kind of the closed list.
#[derive(Debug)]
pub(super) struct Rates {
    began: Instant,
    counts: BTreeMap<&'static str, u32>,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), counts: BTreeMap::new() }
    }

    pub(super) fn frame(&mut self, frame: &BackendFrame) -> Result<(), FrameError> {
        let Bounds { kind, per_minute, .. } = frame.bounds();
        self.take(kind, per_minute)
    }

    pub(super) fn chunk(&mut self) -> Result<(), FrameError> {
        self.take("chunk", chunk::PER_MINUTE)
    }

    fn take(&mut self, kind: &'static str, bound: u32) -> Result<(), FrameError> {
        if self.began.elapsed() >= WINDOW {
            *self = Self::new();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count > bound { Err(FrameError::Rate { kind, bound }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_own_bound_and_a_new_minute_begins_anew() {
        let mut rates = Rates::new();
        let ping = BackendFrame::Ping { nonce: 1, time_ms: 2 };
        for _ in 0..120 {
            assert!(rates.frame(&ping).is_ok());
        }
        assert!(matches!(rates.frame(&ping), Err(FrameError::Rate { kind: "ping", bound: 120 })));
        assert!(rates.frame(&BackendFrame::Repository { timestamp: 1 }).is_ok());
        assert!(rates.chunk().is_ok());
        tokio::time::advance(WINDOW).await;
        assert!(rates.frame(&ping).is_ok());
    }
}
