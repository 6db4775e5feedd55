//! The little of WASI that guests get: stdio that ends in the log, clocks, random, and the
//! resources that these need. No files, no sockets, no environment, no arguments: what is
//! not on the list is not linked, and a component that imports it does not load.

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, io, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiView as _};

use super::capture::{Capture, LogBook, Source};
use super::limits::{MAX_RANDOM, MAX_RESOURCES};
use crate::capabilities::Call;
use crate::recording::{self, TapeHandle};

/// Every WASI interface that is linked, without its 0.2 patch version. Found by building
/// real guests: this is what Rust's std imports for printing, panicking, hashing and time.
pub(crate) const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Whether an import, for example `wasi:io/streams@0.2.6`, is linked.
pub(crate) fn allows(import: &str) -> bool {
    import.split_once('@').is_some_and(|(name, version)| version.starts_with("0.2.") && INTERFACES.contains(&name))
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

pub(crate) fn add_to_linker(l: &mut Linker<Call>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::exit::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::stderr::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::stdin::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::stdout::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::terminal_input::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::terminal_output::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::terminal_stderr::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::terminal_stdin::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    cli::terminal_stdout::add_to_linker::<Call, WasiCli>(l, Call::cli)?;
    clocks::monotonic_clock::add_to_linker::<Call, WasiClocks>(l, Call::clocks)?;
    clocks::wall_clock::add_to_linker::<Call, WasiClocks>(l, Call::clocks)?;
    io::error::add_to_linker::<Call, Table>(l, |c| c.ctx().table)?;
    io::poll::add_to_linker::<Call, Table>(l, |c| c.ctx().table)?;
    io::streams::add_to_linker::<Call, Table>(l, |c| c.ctx().table)?;
    random::insecure::add_to_linker::<Call, WasiRandom>(l, |c| c.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<Call, WasiRandom>(l, |c| c.ctx().ctx.random())?;
    random::random::add_to_linker::<Call, WasiRandom>(l, |c| c.ctx().ctx.random())
}

/// What stands behind the interfaces for one invocation.
pub(crate) fn context(log: &LogBook, tape: Option<&TapeHandle>) -> (WasiCtx, ResourceTable) {
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(Capture::new(log.clone(), Source::Stdout))
        .stderr(Capture::new(log.clone(), Source::Stderr))
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if let Some(tape) = tape {
        recording::attach(&mut wasi, tape);
    }
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_RESOURCES);
    (wasi.build(), table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_sockets_and_later_wasi_are_not_on_the_list() {
        for good in ["wasi:cli/stdout@0.2.6", "wasi:io/streams@0.2.0"] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "wasi:filesystem/types@0.2.6",
            "wasi:filesystem/preopens@0.2.6",
            "wasi:sockets/tcp@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:cli/stdout@0.3.0",
            "wasi:cli/stdout",
            "wasi:cli/run@0.2.6",
        ] {
            assert!(!allows(bad), "{bad}");
        }
    }
}
