//! The plan of a shadow beside an apply. It looks at the host before the first effect, for
//! which the apply waits a bounded time and no longer; what comes later is no comparison.
//! Refuses to be a burden: a few at a time, none while invocations wait, and a failure of
//! its own is never the apply's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use viworks_protocol::outcome::{Cost, EffectState, Report};
use viworks_protocol::shadow::{Shadow as Told, Verdict};
use viworks_protocol::warrant::{Mode, VerifiedWarrant};
use viworks_signing::release::EffectClass;

use super::serve::Target;
use super::{Inner, Live};
use crate::capabilities::Facts;
use crate::effects::Ahead;
use crate::effects::compare::{Planned, compare};
use crate::host::{Changes, Host};

/// An apply waits with its first effect at most so long after its start.
const HEAD_START: Duration = Duration::from_millis(100);

/// A read is answered at most so long after it could have been.
const READ_WAIT: Duration = Duration::from_millis(5);

/// How long the end of one that was told to stop is awaited: it stops at an epoch.
const STOPPING: Duration = Duration::from_millis(20);

/// One that computed so long and was not done is slow by itself, not for want of a turn.
const SLOW_CPU: Duration = Duration::from_millis(50);

/// A shadow on its way, or why there is none this time.
pub(super) struct Beside {
    digest: String,
    planning: Option<Planning>,
}

struct Planning {
    task: JoinHandle<Planned>,
    ended: CancellationToken,
    cancel: CancellationToken,
    until: Instant,
    reads: bool,
    /// The host's changes when it began.
    changes: u64,
}

impl Beside {
    /// What the first effect waits for.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        let planning = self.planning.as_ref()?;
        Some(Ahead { ended: planning.ended.clone(), until: planning.until })
    }
}

impl Inner {
    /// Begin to plan the shadow of the release that this warrant runs, if there is one.
    pub(super) fn beside(
        &self,
        warrant: &VerifiedWarrant,
        target: &Target,
        facts: &Facts,
        live: &Live,
    ) -> Option<Beside> {
        let order = warrant.warrant();
        if order.mode != Mode::Apply || order.undo.is_some() {
            return None;
        }
        let shadow = self.registry.shadow(&order.plugin).filter(|shadow| shadow.has(&order.verb))?;
        // What an earlier release does is no measure for the next one.
        self.registry.plugin(&order.plugin).filter(|active| active.digest() == target.plugin.digest())?;
        let digest = shadow.digest().to_owned();
        let turn = Arc::clone(&self.shadows).try_acquire_owned();
        let Ok(turn) = turn.map_err(drop).and_then(|turn| match self.waiting.load(Ordering::Relaxed) {
            0 => Ok(turn),
            _ => Err(()),
        }) else {
            return Some(Beside { digest, planning: None });
        };
        let (ended, cancel) = (CancellationToken::new(), live.cancel.child_token());
        let until = Instant::now() + HEAD_START;
        let facts = Facts { deadline: until.into_std(), ..facts.clone() };
        let (invocation, args) = (warrant.invocation().clone(), warrant.args().clone());
        let (host, changes) = (Arc::clone(&self.host), self.host.changes.count());
        // Also where it panics.
        let (over, stop) = (ended.clone().drop_guard(), cancel.clone());
        let task = self.tasks.spawn(async move {
            let _held = (turn, over);
            shadow.plan(&invocation, &args, facts, host, stop).await
        });
        let reads = target.class == EffectClass::Read;
        Some(Beside { digest, planning: Some(Planning { task, ended, cancel, until, reads, changes }) })
    }

    /// What became of the shadow, beside what the active release did.
    pub(super) async fn compared(&self, beside: Beside, active: &Report) -> Told {
        let told = match beside.planning {
            Some(planning) => planning.told(&beside.digest, active, &self.host).await,
            None => Told::skipped(beside.digest, "busy", Cost::default()),
        };
        self.metrics.shadowed(told.verdict);
        if matches!(told.verdict, Verdict::Departed | Verdict::Failed) {
            tracing::info!(digest = %told.digest, verdict = told.verdict.as_str(), code = told.code, "shadow");
        }
        told
    }
}

impl Planning {
    async fn told(mut self, digest: &str, active: &Report, host: &Host) -> Told {
        let wait = if self.reads { Instant::now() + READ_WAIT } else { self.until };
        let in_time = timeout_at(wait, self.ended.cancelled()).await.is_ok();
        if !in_time {
            self.cancel.cancel();
        }
        let planned = match timeout(STOPPING, &mut self.task).await {
            Ok(Ok(planned)) => planned,
            Ok(Err(_)) => return failed(digest, "trap", "the gateway failed while it planned it", Cost::default()),
            Err(_) => return Told::skipped(digest, "late", Cost::default()),
        };
        let cost = planned.report.cost;
        let code = planned.report.failure.as_ref().map_or("", |failure| failure.code.as_str());
        if code == "busy" {
            return Told::skipped(digest, "busy", cost);
        }
        // Its own time was over, or the invocation's end took it along.
        if !in_time || matches!(code, "timeout" | "cancelled") {
            let slow = u128::from(cost.cpu_us) >= SLOW_CPU.as_micros();
            return match slow {
                true => failed(digest, "timeout", "it was not planned in its time", cost),
                false => Told::skipped(digest, "late", cost),
            };
        }
        let told = compare(digest, active, &planned);
        let others = host.changes.count().wrapping_sub(self.changes) != own(active) * Changes::EACH;
        // The same in spite of it is the same; else nobody can say whose doing it is.
        if others && matches!(told.verdict, Verdict::Departed | Verdict::Failed) {
            return Told { message: told.message, ..Told::skipped(digest, "disturbed", cost) };
        }
        told
    }
}

/// How often the invocation itself changed the host.
fn own(active: &Report) -> u64 {
    let changes = |state: EffectState| match state {
        EffectState::Planned => 0,
        EffectState::Applied | EffectState::Failed | EffectState::Unknown => 1,
        // Done and taken back, or tried to.
        EffectState::RolledBack | EffectState::Stuck => 2,
    };
    active.effects.iter().map(|effect| changes(effect.state)).sum()
}

fn failed(digest: &str, code: &str, message: &str, cost: Cost) -> Told {
    let skipped = Told::skipped(digest, code, cost);
    Told { verdict: Verdict::Failed, message: Some(message.to_owned()), ..skipped }
}
