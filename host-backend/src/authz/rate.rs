//! How many requests one token may make: a bucket each, filled evenly. Bounded: buckets
//! that are full again are forgotten first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const BUCKETS: usize = 4_096;

#[derive(Debug)]
pub struct RateLimit {
    /// Requests a second on average.
    rate: f64,
    /// At once, after a pause.
    burst: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl RateLimit {
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        Self::of_period(Duration::from_secs(1) / rate.max(1), burst)
    }

    /// One request every `period`.
    #[must_use]
    pub fn of_period(period: Duration, burst: u32) -> Self {
        Self { rate: 1.0 / period.as_secs_f64(), burst: f64::from(burst.max(1)), buckets: Mutex::default() }
    }

    /// Take one request of `name`'s.
    ///
    /// # Errors
    /// When there is one again.
    pub fn take(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * self.rate).min(self.burst)
        };
        if buckets.len() >= BUCKETS && !buckets.contains_key(name) {
            buckets.retain(|_, bucket| filled(bucket) < self.burst);
            if buckets.len() >= BUCKETS {
                // As many tokens are at their bound as are remembered: none more may be.
                return Err(Duration::from_secs(1));
            }
        }
        let left = buckets.get(name).map_or(self.burst, filled);
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / self.rate));
        }
        buckets.insert(name.to_owned(), Bucket { left: left - 1.0, at: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate_each_token_for_itself() {
        let (limit, now) = (RateLimit::new(2, 3), Instant::now());
        for _ in 0..3 {
            assert_eq!(limit.take("a", now), Ok(()));
        }
        assert_eq!(limit.take("a", now), Err(Duration::from_millis(500)));
        assert_eq!(limit.take("b", now), Ok(()));
        let later = now + Duration::from_millis(500);
        assert_eq!(limit.take("a", later), Ok(()));
        assert!(limit.take("a", later).is_err());
        assert_eq!(limit.take("a", now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn buckets_are_bounded_and_full_ones_go() {
        let (limit, now) = (RateLimit::new(1, 1), Instant::now());
        for n in 0..BUCKETS {
            assert_eq!(limit.take(&n.to_string(), now), Ok(()));
        }
        assert!(limit.take("more", now).is_err());
        assert_eq!(limit.take("more", now + Duration::from_secs(2)), Ok(()));
    }
}
