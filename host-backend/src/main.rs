//! Starts and stops the backend; everything else is the library's.

use clap::Parser as _;
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use viworks_backend::cli::Cli;

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        // Where standard error is closed, nobody would read it anyway.
        let _ = writeln!(std::io::stderr(), "viworks-backend: {text}");
        ExitCode::FAILURE
    })
}

fn start() -> Result<ExitCode, Box<dyn Error>> {
    let cli = Cli::parse();
    // SQLite has threads of its own, and each change waits for one of them: they are left a
    // core. Measured on two cores: a command from post to result takes a fifth less.
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    Ok(runtime.block_on(cli.execute())?)
}
