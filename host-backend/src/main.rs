//! Starts and stops the backend; everything else is the library's.

use clap::Parser as _;
use std::error::Error as _;
use std::io::Write as _;
use std::process::ExitCode;
use viworks_backend::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().execute().await {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // Where standard error is closed, nobody would read it anyway.
            let _ = writeln!(std::io::stderr(), "viworks-backend: {text}");
            ExitCode::FAILURE
        }
    }
}
