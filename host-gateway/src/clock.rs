//! The backend's time as this gateway knows it: learned at the handshake and at each
//! ping, carried on by the monotonic clock. Warrants are judged by it, so that a host
//! with a wrong clock neither runs what has expired nor refuses what is valid.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Cheap to clone; all clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    anchor: Arc<Mutex<Option<Anchor>>>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    backend_ms: u64,
}

impl Anchor {
    fn ms_at(self, now: Instant) -> u64 {
        self.backend_ms.saturating_add(millis(now.saturating_duration_since(self.at)))
    }
}

impl Clock {
    /// Unix milliseconds by the backend's clock, or by the host's before any backend was met.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.anchor().map_or_else(host_ms, |anchor| anchor.ms_at(Instant::now()))
    }

    /// What `Welcome` said, which took `round_trip` from the `Hello`: half of it was the
    /// way back.
    pub fn learn(&self, backend_ms: u64, round_trip: Duration) {
        let backend_ms = backend_ms.saturating_add(millis(round_trip / 2));
        self.set(Anchor { at: Instant::now(), backend_ms });
    }

    /// What a ping said. A ping can be late, never early: it only moves the clock forward,
    /// so that who delays frames can't keep an expired warrant alive.
    pub fn advance(&self, backend_ms: u64) {
        if backend_ms > self.now_ms() {
            self.set(Anchor { at: Instant::now(), backend_ms });
        }
    }

    /// How far the host's clock is behind the backend's, in milliseconds.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        self.now_ms().cast_signed().saturating_sub(host_ms().cast_signed())
    }

    fn anchor(&self) -> Option<Anchor> {
        self.anchor.lock().ok().and_then(|anchor| *anchor)
    }

    fn set(&self, anchor: Anchor) {
        if let Ok(mut held) = self.anchor.lock() {
            *held = Some(anchor);
        }
    }
}

/// Unix milliseconds by the host's clock.
#[must_use]
pub fn host_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: u64 = 1_000_000;

    #[test]
    fn tells_the_backends_time_whatever_the_hosts_is() {
        let clock = Clock::default();
        assert!(clock.now_ms().abs_diff(host_ms()) < 5_000);
        clock.learn(BACKEND, Duration::from_secs(40));
        assert!((BACKEND + 20_000..BACKEND + 25_000).contains(&clock.clone().now_ms()));
        assert!(clock.offset_ms() < -1_000_000);
        let anchor = Anchor { at: Instant::now(), backend_ms: BACKEND };
        assert_eq!(anchor.ms_at(anchor.at + Duration::from_secs(3)), BACKEND + 3_000);
    }

    #[test]
    fn a_late_ping_does_not_turn_it_back() {
        let clock = Clock::default();
        clock.learn(BACKEND, Duration::ZERO);
        clock.advance(BACKEND - 60_000);
        assert!(clock.now_ms() >= BACKEND);
        clock.advance(BACKEND + 50_000);
        assert!(clock.now_ms() >= BACKEND + 50_000);
    }
}
