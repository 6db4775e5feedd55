//! The engine's clock: an OS thread that advances the epoch while invocations run, and
//! sleeps while none does, so that an idle gateway stays idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// The time between two epochs: how late a guest in a loop notices anything.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks without an invocation before the thread parks. Parking at once would cost every
/// lone invocation a wake-up.
const IDLE_TICKS: u32 = 200;

#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct State {
    running: AtomicU32,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// The epoch advances as long as one of these lives.
#[derive(Debug)]
pub(crate) struct Running(Arc<State>);

impl Ticker {
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let state = Arc::<State>::default();
        let shared = state.clone();
        let handle = thread::Builder::new().name("epoch".into()).spawn(move || run(&shared, &engine))?;
        Ok(Self { state, thread: handle.thread().clone() })
    }

    pub(crate) fn running(&self) -> Running {
        self.state.running.fetch_add(1, Ordering::SeqCst);
        if self.state.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(self.state.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn run(state: &State, engine: &EngineWeak) {
    let mut idle = 0;
    while !state.stop.load(Ordering::SeqCst) {
        if state.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        } else {
            idle += 1;
        }
        if idle < IDLE_TICKS {
            thread::sleep(TICK);
            continue;
        }
        state.parked.store(true, Ordering::SeqCst);
        // An invocation that began before `parked` was set did not wake this thread.
        while state.parked.load(Ordering::SeqCst)
            && state.running.load(Ordering::SeqCst) == 0
            && !state.stop.load(Ordering::SeqCst)
        {
            thread::park();
        }
        state.parked.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use wasmtime::{Config, Engine, Instance, Module, Store};

    #[test]
    fn it_parks_when_nothing_runs_and_wakes_for_the_next() -> wasmtime::Result<()> {
        let engine = Engine::new(Config::new().epoch_interruption(true))?;
        let ticker = Ticker::start(engine.weak())?;
        let module = Module::new(&engine, wat::parse_str("(module (func (export \"spin\") (loop (br 0))))")?)?;
        for _ in 0..2 {
            let patience = Instant::now() + Duration::from_secs(30);
            while !ticker.state.parked.load(Ordering::SeqCst) {
                assert!(Instant::now() < patience, "it parks");
                thread::sleep(TICK);
            }
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(2);
            store.epoch_deadline_trap();
            let instance = Instance::new(&mut store, &module, &[])?;
            let spin = instance.get_typed_func::<(), ()>(&mut store, "spin")?;
            let running = ticker.running();
            assert!(spin.call(&mut store, ()).is_err(), "an epoch ended it");
            drop(running);
        }
        Ok(())
    }
}
