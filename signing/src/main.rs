//! `viworks-sign`: starts, runs one command, ends with its exit code.

mod cli;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            cli::output::error(&error);
            error.exit().into()
        }
    }
}
