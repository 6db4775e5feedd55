//! How busy the processors are: the difference between two readings of `/proc/stat`.
//! Refuses a difference over too short a time, which would be noise, and one over too
//! long a time, which would be history.

use std::time::Duration;

use procfs::{CpuTime, CurrentSI, KernelStats};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::super::wit::viworks::gateway::system as wit;
use super::{percent, unreadable};
use crate::failure::Failure;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(35);

/// Remembers a reading, so that most calls need not wait.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Mutex<Option<(Reading, wit::Cpu)>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cores: u32,
    busy: u64,
    iowait: u64,
    steal: u64,
    all: u64,
}

impl Meter {
    /// The shares since the last call, if that was not long ago; else over 100 ms from now.
    /// Callers within 100 ms get the same answer.
    pub(super) async fn sample(&self) -> Result<wit::Cpu, Failure> {
        let mut last = self.last.lock().await;
        let before = match &*last {
            Some((reading, cpu)) if reading.at.elapsed() < SHORTEST => return Ok(*cpu),
            Some((reading, _)) if reading.at.elapsed() < LONGEST => *reading,
            _ => {
                let reading = Reading::now()?;
                sleep(SHORTEST).await;
                reading
            }
        };
        let after = Reading::now()?;
        let cpu = after.since(&before);
        *last = Some((after, cpu));
        Ok(cpu)
    }
}

impl Reading {
    fn now() -> Result<Self, Failure> {
        let stat = KernelStats::current().map_err(|e| unreadable("/proc/stat", &e))?;
        Ok(Self::of(&stat.total, u32::try_from(stat.cpu_time.len()).unwrap_or(u32::MAX)))
    }

    fn of(time: &CpuTime, cores: u32) -> Self {
        let (iowait, steal) = (time.iowait.unwrap_or(0), time.steal.unwrap_or(0));
        // Guest time is in `user` and `nice` already (proc(5)).
        let busy = time.user + time.nice + time.system + time.irq.unwrap_or(0) + time.softirq.unwrap_or(0);
        Self { at: Instant::now(), cores, busy, iowait, steal, all: busy + iowait + steal + time.idle }
    }

    fn since(&self, before: &Self) -> wit::Cpu {
        let all = self.all.saturating_sub(before.all);
        let share = |now: u64, then: u64| percent(now.saturating_sub(then), all);
        wit::Cpu {
            cores: self.cores,
            used_percent: share(self.busy, before.busy),
            iowait_percent: share(self.iowait, before.iowait),
            steal_percent: share(self.steal, before.steal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_between() {
        let reading = |busy, iowait, steal, all| Reading { at: Instant::now(), cores: 2, busy, iowait, steal, all };
        let cpu = reading(150, 20, 5, 400).since(&reading(100, 10, 5, 200));
        assert_eq!((cpu.used_percent, cpu.iowait_percent, cpu.steal_percent), (25.0, 5.0, 0.0));
        // iowait may shrink (proc(5)).
        assert_eq!(reading(1, 0, 0, 1).since(&reading(1, 5, 0, 6)).iowait_percent, 0.0);
    }

    #[tokio::test]
    async fn a_busy_thread_shows_and_close_calls_agree() {
        let meter = Meter::default();
        meter.sample().await.unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let spins = std::sync::Arc::clone(&stop);
        let spinner = std::thread::spawn(move || while !spins.load(std::sync::atomic::Ordering::Relaxed) {});
        sleep(Duration::from_millis(300)).await;
        let cpu = meter.sample().await.unwrap();
        let again = meter.sample().await.unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        spinner.join().unwrap();
        assert!(cpu.cores > 0 && cpu.used_percent > 0.0 && cpu.used_percent <= 100.0, "{cpu:?}");
        assert_eq!((again.used_percent, again.cores), (cpu.used_percent, cpu.cores));
    }
}
