//! What holds a running invocation: its cpu clock and budget, the order to stop, and the
//! mark that an effect is being applied. Shared by the call and whoever supervises it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::capabilities::Stopped;

/// Ends an invocation that used its cpu time.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit_ms} ms of cpu time")]
pub struct CpuLimit {
    pub limit_ms: u32,
}

#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    in_effect: AtomicBool,
    /// Nanoseconds of finished polls, and the thread's clock when the running one began.
    spent: AtomicU64,
    began: AtomicU64,
}

/// An effect is being applied as long as this lives.
#[derive(Debug)]
pub(crate) struct InEffect(Arc<Control>);

impl Drop for InEffect {
    fn drop(&mut self) {
        self.0.in_effect.store(false, Ordering::Release);
    }
}

impl Control {
    /// The next host call or epoch ends the invocation.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn in_effect(self: &Arc<Self>) -> InEffect {
        self.in_effect.store(true, Ordering::Release);
        InEffect(self.clone())
    }

    pub(crate) fn is_in_effect(&self) -> bool {
        self.in_effect.load(Ordering::Acquire)
    }

    /// Cpu time of finished polls.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    /// Drive `future`, counting the cpu time of the thread that polls it: guest code and
    /// the host functions' own work, not what they wait for.
    pub(crate) async fn metered<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let began = thread_cpu_ns();
            self.began.store(began, Ordering::Relaxed);
            let polled = future.as_mut().poll(cx);
            self.spent.fetch_add(thread_cpu_ns().saturating_sub(began), Ordering::Relaxed);
            polled
        })
        .await
    }

    /// What an epoch means, called from within a poll: an end, or a turn for others.
    ///
    /// # Errors
    /// [`Stopped`] or [`CpuLimit`], which end the invocation.
    pub(crate) fn at_epoch(&self, limit_ms: u32) -> wasmtime::Result<UpdateDeadline> {
        if self.stopped() {
            return Err(wasmtime::Error::new(Stopped));
        }
        let running = thread_cpu_ns().saturating_sub(self.began.load(Ordering::Relaxed));
        let used = self.spent.load(Ordering::Relaxed).saturating_add(running);
        if used > u64::from(limit_ms) * 1_000_000 {
            return Err(wasmtime::Error::new(CpuLimit { limit_ms }));
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }
}

fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
