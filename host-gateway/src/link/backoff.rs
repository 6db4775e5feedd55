//! How long to wait before the next attempt: full jitter, as a fleet needs that comes back
//! after its backend did (exponential, and uniformly random below the bound).

use std::time::Duration;

/// The bound of the first wait, and of every wait.
const BASE: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(60);

/// The longest wait that a backend may ask for.
const MAX_ASKED: Duration = Duration::from_secs(3_600);

/// A session that lasted this long was a good one: the next failure is the first.
pub(super) const STABLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Backoff {
    base: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: BASE, failures: 0 }
    }
}

impl Backoff {
    #[cfg(test)]
    pub(super) fn starting_at(base: Duration) -> Self {
        Self { base, failures: 0 }
    }

    /// The wait after an attempt that `lasted` so long as a session (zero: none came about).
    /// `asked` is what a `Goodbye` or a `Retry-After` said; the jitter comes on top of it, and
    /// is as wide as it at least: many are asked the same at the same time. `random` is
    /// uniform from 0 to 1.
    pub(super) fn next(&mut self, lasted: Duration, asked: Option<Duration>, random: f64) -> Duration {
        if lasted >= STABLE {
            self.failures = 0;
        }
        let bound = self.base.saturating_mul(1 << self.failures.min(20)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let asked = asked.unwrap_or_default().min(MAX_ASKED);
        let jitter = bound.max(asked.min(CAP)).mul_f64(random.clamp(0.0, 1.0));
        asked + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn grows_to_its_cap_and_is_uniform_below() {
        let mut backoff = Backoff::default();
        let bounds: Vec<_> = (0..10).map(|_| backoff.next(NONE, None, 1.0).as_millis()).collect();
        assert_eq!(bounds, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(backoff.next(NONE, None, 0.0), NONE);
        assert_eq!(backoff.next(NONE, None, 0.5), CAP / 2);
        for _ in 0..100 {
            backoff.next(NONE, None, 1.0);
        }
        assert_eq!(backoff.next(NONE, None, 1.0), CAP);
    }

    #[test]
    fn a_stable_session_starts_it_anew_and_a_short_one_does_not() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(NONE, None, 1.0);
        }
        assert_eq!(backoff.next(STABLE / 2, None, 1.0).as_secs(), 16);
        assert_eq!(backoff.next(STABLE, None, 1.0), BASE);
    }

    #[test]
    fn honours_what_the_backend_asks_within_reason() {
        let mut backoff = Backoff::default();
        let asked = Some(Duration::from_secs(90));
        assert_eq!(backoff.next(NONE, asked, 0.0), Duration::from_secs(90));
        assert_eq!(backoff.next(NONE, asked, 1.0), Duration::from_secs(90) + CAP);
        let short = Some(Duration::from_secs(5));
        assert_eq!(
            Backoff::default().next(NONE, short, 1.0),
            Duration::from_secs(10),
            "spread as wide as it was asked"
        );
        assert!(backoff.next(NONE, Some(Duration::MAX), 1.0) <= MAX_ASKED + CAP);
    }
}
