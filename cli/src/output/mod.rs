//! What the program prints: JSON or tables on standard output, notes and progress on
//! standard error. Text from hosts is shown with its control characters escaped, so that
//! no host writes to an operator's terminal.

mod paint;
mod progress;
mod table;

use std::error::Error as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

pub use paint::{Ink, Paint};
pub use progress::Progress;
pub use table::Table;

use crate::error::Error;

#[derive(Debug, Clone, Copy)]
pub struct Out {
    json: bool,
}

impl Out {
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// `value` as JSON if that was asked for, else what `table` makes of it.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn show(&self, value: &Value, table: impl FnOnce(&Value) -> String) -> Result<(), Error> {
        if self.json { self.write(&format!("{value:#}\n")) } else { self.write(&table(value)) }
    }

    /// A list's items as a table, and a note if there are more.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub fn list(&self, list: &Value, table: impl FnOnce(&[Value]) -> Table) -> Result<(), Error> {
        self.show(list, |list| table(list["items"].as_array().map_or(&[], Vec::as_slice)).to_string())?;
        if !list["next"].is_null() {
            self.note("there are more: raise --limit");
        }
        Ok(())
    }

    /// # Errors
    /// When standard output can't be written.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Output)
    }

    /// A line for people beside the output. Losing it is no failure.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", plain_lines(text));
    }

    /// An error with all its causes.
    pub fn failure(&self, error: &Error) {
        let mut text = format!("viworks: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.note(&text);
    }

    /// Progress on a terminal; silent elsewhere.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::new(io::stderr().is_terminal())
    }
}

/// One line of text without control characters.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { Shown::Escaped(c.escape_default()) } else { Shown::Plain(Some(c)) })
        .collect()
}

/// As [`plain`], and lines stay lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A field's value for a table: text as it is, nothing as `-`, the rest as JSON.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first sentence of a text of several lines, as one line.
#[must_use]
pub fn first_sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.find(". ").map_or_else(|| text.clone(), |end| text[..=end].to_owned())
}

/// A moment without its fractions: `2031-05-04 10:20:30Z`.
#[must_use]
pub fn moment(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.len() >= 20 && text.is_ascii() => format!("{} {}Z", &text[..10], &text[11..19]),
        _ => cell(value),
    }
}

enum Shown {
    Plain(Option<char>),
    Escaped(std::char::EscapeDefault),
}

impl Iterator for Shown {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(c) => c.take(),
            Self::Escaped(escape) => escape.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_do_not_write_to_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{9b}c"), "a\\u{1b}[2Jb\\n\\u{9b}c");
        assert_eq!(plain_lines("a\nb\r\u{7}"), "a\nb\\r\\u{7}");
    }

    #[test]
    fn moments_lose_their_fractions() {
        assert_eq!(moment(&"2031-05-04T10:20:30.123Z".into()), "2031-05-04 10:20:30Z");
        assert_eq!(moment(&Value::Null), "-");
    }
}
