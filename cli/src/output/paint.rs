//! Colour, where standard output is a terminal and nobody asked for none (`NO_COLOR`).
//! Refuses to colour text that still has control characters: callers escape it first.

use std::io::{self, IsTerminal as _};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Bold,
    Red,
    Green,
    Yellow,
}

#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// As standard output and the environment (<https://no-color.org>) want it.
    #[must_use]
    pub fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(io::stdout().is_terminal() && !refused && !dumb)
    }

    #[must_use]
    pub fn off() -> Self {
        Self(false)
    }

    #[cfg(test)]
    pub(crate) fn on() -> Self {
        Self(true)
    }

    /// `text`, which has no control characters, in this ink.
    #[must_use]
    pub fn ink(self, ink: Ink, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => 1,
            Ink::Red => 31,
            Ink::Green => 32,
            Ink::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
