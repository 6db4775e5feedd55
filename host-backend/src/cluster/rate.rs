//! How often a token may ask, counted over all instances: in Redis while it is there, in
//! this process while it is not. The generic cell rate algorithm (ITU-T I.371, as a
//! virtual schedule), one key a token, by Redis' own clock.

use redis::Script;
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

use super::Cluster;
use crate::authz::RateLimit;

/// Longer, and the request is counted here.
const WITHIN: Duration = Duration::from_millis(100);

/// Keys: the token's. Arguments: microseconds between two requests, requests at once.
/// Answers the microseconds until there is one again; 0: it was taken.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
         local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
         local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now) or now, now)
         -- A clock that was set back must not lock anybody out.
         due = math.min(due, now + step * burst) + step
         local wait = due - step * burst - now
         if wait > 0 then return math.ceil(wait) end
         redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
         return 0",
    )
});

/// Requests of tokens, bounded.
#[derive(Debug)]
pub struct Limit {
    /// For an instance alone, and while Redis is gone.
    here: RateLimit,
    cluster: Cluster,
    /// Between two requests, on average.
    period: Duration,
    burst: u32,
}

impl Limit {
    #[must_use]
    pub fn new(cluster: Cluster, rate: u32, burst: u32) -> Self {
        Self::of_period(cluster, Duration::from_secs(1) / rate.max(1), burst)
    }

    /// One request every `period`.
    #[must_use]
    pub fn of_period(cluster: Cluster, period: Duration, burst: u32) -> Self {
        Self { here: RateLimit::of_period(period, burst), cluster, period, burst: burst.max(1) }
    }

    /// Take one request of `name`'s.
    ///
    /// # Errors
    /// When there is one again.
    pub async fn take(&self, name: &str) -> Result<(), Duration> {
        match self.ask(name).await {
            Some(0) => Ok(()),
            Some(wait_us) => Err(Duration::from_micros(wait_us)),
            None => self.here.take(name, Instant::now()),
        }
    }

    /// `None` where Redis can't tell.
    async fn ask(&self, name: &str) -> Option<u64> {
        let link = self.cluster.bus().link()?;
        let metrics = &self.cluster.inner.metrics;
        let Some(mut connection) = link.connection() else {
            metrics.rates_here.inc();
            return None;
        };
        // Names are operators' own text: hashed, they have one length and no surprises.
        let key = link.key(&format!("rate:{}", hex::encode(&Sha256::digest(name)[..16])));
        let mut call = TAKE.key(key);
        let call = call.arg(self.period.as_secs_f64() * 1e6).arg(self.burst);
        match tokio::time::timeout(WITHIN, call.invoke_async::<u64>(&mut connection)).await {
            Ok(Ok(wait_us)) => return Some(wait_us),
            Ok(Err(error)) => link.failed(&error),
            Err(_) => drop(self.cluster.inner.metrics.redis_errors.inc()),
        }
        metrics.rates_here.inc();
        None
    }
}
