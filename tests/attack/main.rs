//! `viworks-attack`: runs every attack that must be refused and prints a line each. Ends
//! with 1 if one was accepted, refused with another code, or could not be tried.

use clap::Parser;
use std::io::Write as _;
use std::process::ExitCode;
use viworks_tests::attack;

/// Attack releases, repository and gateway; every attack must be refused.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  viworks-attack root-      # the attacks whose names begin so")]
struct Arguments {
    /// Only attacks whose name begins with this
    #[arg(default_value = "")]
    name: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let (mut refused, mut open) = (0, 0);
    for row in attack::rows().iter().filter(|row| row.name.starts_with(&arguments.name)) {
        let outcome = row.check();
        match &outcome {
            Ok(_) => refused += 1,
            Err(_) => open += 1,
        }
        let (Ok(line) | Err(line)) = outcome;
        if writeln!(out, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    let told = writeln!(out, "{refused} attacks refused, {open} not");
    if told.is_ok() && open == 0 && refused > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
