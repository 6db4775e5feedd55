//! Everything that a plugin can do wrong within its limits, a verb each and a few lines
//! each. A verb that got away with it says how far it came.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use exports::viworks::hostile::verbs::{Guest, Sight};
use viworks_sdk::log::{self, Level};
use viworks_sdk::{Failure, Result, invocation, progress, state};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:hostile/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/invocation@1.0.0": viworks_sdk::invocation,
        "viworks:gateway/log@1.0.0": viworks_sdk::log,
        "viworks:gateway/progress@1.0.0": viworks_sdk::progress,
        "viworks:gateway/state@1.0.0": viworks_sdk::state,
    },
});

const MIB: usize = 1 << 20;

struct Plugin;

impl Guest for Plugin {
    fn endless_loop() -> Result<()> {
        let mut n = 0_u32;
        loop {
            n = black_box(n.wrapping_add(1));
        }
    }

    fn memory_bomb(mib: u32) -> Result<u32> {
        let mut held: Vec<Vec<u8>> = Vec::new();
        for _ in 0..mib {
            let mut piece = Vec::new();
            if piece.try_reserve_exact(MIB).is_err() {
                break;
            }
            piece.resize(MIB, 0xa5);
            held.push(black_box(piece));
        }
        Ok(count(held.len()))
    }

    fn memory_grab(mib: u32) -> Result<u32> {
        let piece = black_box(vec![0xa5_u8; mib as usize * MIB]);
        Ok(count(piece.len() / MIB))
    }

    fn deep_recursion(depth: u32) -> Result<u32> {
        Ok(down(depth))
    }

    fn giant_output(kib: u32) -> Result<String> {
        Ok("x".repeat(kib as usize * 1024))
    }

    fn giant_failure(kib: u32) -> Result<()> {
        Err(Failure::failed("x".repeat(kib as usize * 1024)))
    }

    fn giant_log(lines: u32, kib: u32) -> Result<u32> {
        let line = "x".repeat(kib as usize * 1024);
        for _ in 0..lines {
            log::write(Level::Info, &line);
        }
        Ok(lines)
    }

    fn giant_stdout(kib: u32) -> Result<u32> {
        let line = [b'x'; 1024];
        for _ in 0..kib {
            std::io::stdout().write_all(&line)?;
            std::io::stderr().write_all(&line)?;
        }
        Ok(kib)
    }

    fn host_call_flood(calls: u32) -> Result<u32> {
        for _ in 0..calls {
            black_box(invocation::get_context());
        }
        Ok(calls)
    }

    fn progress_flood(reports: u32) -> Result<u32> {
        for done in 0..reports {
            progress::report(done, Some(reports), "flooding");
        }
        Ok(reports)
    }

    fn effect_flood(effects: u32) -> Result<u32> {
        for n in 0..effects {
            state::set("flood", &n.to_string())?;
        }
        Ok(effects)
    }

    fn giant_argument(mib: u32) -> Result<u32> {
        state::get(&"x".repeat(mib as usize * MIB))?;
        Ok(mib)
    }

    fn trap(text: String) -> Result<()> {
        panic!("{text}");
    }

    fn exit(code: i32) -> Result<()> {
        std::process::exit(code);
    }

    fn look_around() -> Result<Sight> {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input)?;
        Ok(Sight {
            environment: std::env::vars().map(|(name, value)| format!("{name}={value}")).collect(),
            arguments: std::env::args().collect(),
            input,
        })
    }
}

/// Works on the way back, in steps that do not commute: no compiler makes a loop of it.
#[inline(never)]
fn down(depth: u32) -> u32 {
    if depth < 2 { black_box(depth) } else { down(depth - 1).rotate_left(5) ^ depth }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

export!(Plugin);
