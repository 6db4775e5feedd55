//! One line on the terminal that tells how far a command is.

use std::io::{self, Write as _};

use serde_json::Value;

use super::plain;

/// Characters of the line: what fits terminals that are not asked.
const WIDTH: usize = 79;

#[derive(Debug)]
pub struct Progress {
    on: bool,
    settled: u64,
    failed: u64,
    total: u64,
    message: String,
}

impl Progress {
    #[must_use]
    pub(super) fn new(on: bool) -> Self {
        Self { on, settled: 0, failed: 0, total: 0, message: String::new() }
    }

    /// What the command itself says.
    pub fn counts(&mut self, counts: &Value) {
        let sum = |names: &[&str]| names.iter().filter_map(|name| counts[*name].as_u64()).sum::<u64>();
        self.failed = sum(&["failed", "denied", "cancelled", "expired", "unknown"]);
        self.settled = sum(&["succeeded"]) + self.failed;
        self.total = self.settled + sum(&["queued", "sent", "running"]);
        self.draw();
    }

    /// An invocation ended. The next counts correct what was told twice.
    pub fn settled(&mut self, invocation: &Value) {
        self.settled = (self.settled + 1).min(self.total);
        self.failed += u64::from(invocation["state"] != "succeeded");
        self.draw();
    }

    /// A verb reported a step.
    pub fn step(&mut self, step: &Value) {
        let of = step["total"].as_u64().map(|total| format!("/{total}")).unwrap_or_default();
        let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        self.message = format!("{}: {}{of} {}", text("agent"), step["done"].as_u64().unwrap_or(0), text("message"));
        self.draw();
    }

    fn draw(&self) {
        let failed = if self.failed > 0 { format!(", {} not succeeded", self.failed) } else { String::new() };
        let line = format!("{}/{} done{failed}  {}", self.settled, self.total, self.message);
        self.put(&plain(&line).chars().take(WIDTH).collect::<String>());
    }

    /// Leave an empty line behind.
    pub fn clear(&self) {
        self.put("");
    }

    fn put(&self, line: &str) {
        if self.on {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
        }
    }
}
