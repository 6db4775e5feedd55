//! The `viworks` program: parses, runs one command, turns its end into an exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    viworks::run(viworks::Cli::parse())
}
