//! The one place that prints. Control characters of files that nobody vouches for don't
//! reach the terminal.

use serde_json::Value;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::Error;

/// Lines of text to standard output.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{}", plain(&line)).map_err(Error::Print)?;
    }
    out.flush().map_err(Error::Print)
}

/// One JSON document to standard output.
pub(crate) fn json(value: &Value) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value:#}").and_then(|()| out.flush()).map_err(Error::Print)
}

/// An error with its causes to standard error.
pub(crate) fn error(error: &Error) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "error: {}", plain(&chain(error)));
}

/// An error and its causes in one text.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Control characters replaced; lines stay lines.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
