//! The one clock: Unix milliseconds that never run backwards, and their RFC 3339 text.
//! Refuses nothing; the time of a host or of a frame is never taken from here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const MILLIS: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    latest: Arc<AtomicU64>,
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Unix milliseconds; not less than any value given before, so that a step of the
    /// system's clock can't order events wrongly.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now = u64::try_from(system.as_millis()).unwrap_or(u64::MAX);
        let now = now.saturating_add(self.ahead_ms.load(Ordering::Relaxed));
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Let time pass at once.
    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-01-31T09:05:00.000Z`.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(MILLIS).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_milliseconds_and_bounds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_800_000_000_007), "2027-01-15T08:00:00.007Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn time_passes_and_never_returns() {
        let clock = Clock::default();
        let first = clock.now_ms();
        clock.advance(Duration::from_secs(60));
        assert!(clock.now_ms() >= first + 60_000);
    }
}
