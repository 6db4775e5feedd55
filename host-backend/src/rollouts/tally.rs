//! What releases did, in numbers: runs, failures, denials, time. Distributions are counts
//! in fixed steps, so that a tally stays small however much it counted, and two of them
//! can be compared.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps of a quarter octave, from 1 µs on: a percentile is told to within a fifth.
const STEPS: u32 = 4 * 36;

/// One verb of one release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub runs: u64,
    pub failed: u64,
    pub denied: u64,
    /// Sums of microseconds.
    pub cpu_us: u64,
    /// By step, how many took so long.
    #[serde(default)]
    wall: BTreeMap<u32, u64>,
}

/// One invocation that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub failed: bool,
    pub denied: bool,
    pub wall_us: u64,
    pub cpu_us: u64,
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "steps are coarse, small and not negative"
)]
fn step(us: u64) -> u32 {
    ((us.max(1) as f64).log2() * 4.0).round().clamp(0.0, f64::from(STEPS)) as u32
}

impl Tally {
    pub fn add(&mut self, sample: Sample) {
        self.runs += 1;
        self.failed += u64::from(sample.failed);
        self.denied += u64::from(sample.denied);
        self.cpu_us = self.cpu_us.saturating_add(sample.cpu_us);
        *self.wall.entry(step(sample.wall_us)).or_default() += 1;
    }

    /// What was added since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let steps =
            self.wall.iter().map(|(step, n)| (*step, n.saturating_sub(before.wall.get(step).copied().unwrap_or(0))));
        Self {
            runs: self.runs.saturating_sub(before.runs),
            failed: self.failed.saturating_sub(before.failed),
            denied: self.denied.saturating_sub(before.denied),
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            wall: steps.filter(|(_, n)| *n > 0).collect(),
        }
    }

    /// What another counted too.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.denied += other.denied;
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
        for (step, count) in &other.wall {
            *self.wall.entry(*step).or_default() += count;
        }
    }

    /// The share of runs that failed; 0 without runs.
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        share(self.failed, self.runs)
    }

    #[must_use]
    pub fn denial_rate(&self) -> f64 {
        share(self.denied, self.runs)
    }

    /// The mean, in microseconds.
    #[must_use]
    pub fn mean_cpu_us(&self) -> f64 {
        share(self.cpu_us, self.runs)
    }

    /// The wall time that 95 of 100 stayed within, about, in microseconds.
    #[must_use]
    pub fn p95_wall_us(&self) -> f64 {
        let count: u64 = self.wall.values().sum();
        let rank = count.saturating_mul(95).div_ceil(100);
        let mut seen = 0;
        let found = self.wall.iter().find(|(_, n)| {
            seen += **n;
            seen >= rank
        });
        found.map_or(0.0, |(step, _)| (f64::from(*step) / 4.0).exp2())
    }
}

#[allow(clippy::cast_precision_loss, reason = "shares need no more than 52 bits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_percentiles() {
        let mut tally = Tally::default();
        for n in 0..100 {
            let wall_us = if n < 94 { 1_000 } else { 64_000 };
            tally.add(Sample { failed: n < 5, denied: n == 5, wall_us, cpu_us: 10 });
        }
        assert_eq!((tally.failure_rate(), tally.denial_rate(), tally.mean_cpu_us()), (0.05, 0.01, 10.0));
        let p95 = tally.p95_wall_us();
        assert!((60_000.0..70_000.0).contains(&p95), "{p95}");
        let text = serde_json::to_string(&tally).expect("JSON");
        assert_eq!(serde_json::from_str::<Tally>(&text).expect("a tally"), tally);
        assert_eq!(Tally::default().p95_wall_us(), 0.0);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let add =
            |tally: &mut Tally, failed, wall_us| tally.add(Sample { failed, denied: !failed, wall_us, cpu_us: 7 });
        let (mut before, mut since) = (Tally::default(), Tally::default());
        add(&mut before, true, 10);
        let mut whole = before.clone();
        for wall_us in [10, 5_000] {
            add(&mut whole, false, wall_us);
            add(&mut since, false, wall_us);
        }
        assert_eq!(whole.since(&before), since);
        assert_eq!(whole.since(&whole), Tally::default());
        assert_eq!(before.since(&whole), Tally::default(), "never less than nothing");
    }

    #[test]
    fn extremes_have_a_step() {
        let mut tally = Tally::default();
        for wall_us in [0, 1, u64::MAX] {
            tally.add(Sample { failed: false, denied: false, wall_us, cpu_us: u64::MAX });
        }
        assert!(tally.p95_wall_us() > 1e9);
    }
}
