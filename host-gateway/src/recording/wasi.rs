//! Clocks and random of a recorded invocation: the host's, put on the tape, or the tape's.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::TryRng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use super::tape::TapeHandle;

/// Give the guest clocks and random that pass the tape.
pub(crate) fn attach(wasi: &mut WasiCtxBuilder, tape: &TapeHandle) {
    wasi.wall_clock(Wall(tape.clone()))
        .monotonic_clock(Monotonic { tape: tape.clone(), start: Instant::now() })
        .secure_random(Random(tape.clone()))
        .insecure_random(Random(tape.clone()))
        .insecure_random_seed(seed(tape));
}

fn seed(tape: &TapeHandle) -> u128 {
    let mut bytes = [0; 16];
    let _ = Random(tape.clone()).try_fill_bytes(&mut bytes);
    u128::from_le_bytes(bytes)
}

struct Wall(TapeHandle);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_nanos(self.0.clock(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), true))
    }
}

struct Monotonic {
    tape: TapeHandle,
    start: Instant,
}

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tape.clock(now, false)
    }
}

/// The operating system's random source, past the tape.
struct Random(TapeHandle);

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    #[allow(clippy::expect_used, reason = "without randomness there is no safe way on")]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        if !self.0.is_playing() {
            getrandom::fill(bytes).expect("the operating system gives random bytes");
        }
        self.0.random(bytes);
        Ok(())
    }
}
