//! A recording as a file: JSON lines. The first says what was invoked, each of the next is
//! one event, the last says how it ended. Refuses another version, and a file without its
//! last line, which a crash or a full disk left behind.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use viworks_protocol::outcome::{EffectReport, Failure, Outcome};
use viworks_protocol::warrant::Mode;

use super::tape::Event;

/// The one version that is written and read here.
pub const VERSION: u32 = 1;

/// Larger files are not read.
pub const MAX_BYTES: u64 = 64 << 20;

/// What was invoked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`VERSION`]
    pub recording: u32,
    /// The gateway program's version.
    pub gateway: String,
    pub invocation: String,
    pub command: String,
    pub agent: String,
    pub caller: String,
    pub verb: String,
    pub plugin: String,
    pub version: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    pub mode: Mode,
    pub args: Map<String, Value>,
    /// Unix milliseconds by the gateway's clock.
    pub started_ms: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<EffectReport>,
    /// Events are missing: there were more than a recording holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    pub head: Head,
    pub events: Vec<Event>,
    pub end: End,
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("a recording of version {0}, only {VERSION} is read")]
    Version(u32),
    #[error("line {line} is not a line of a recording")]
    Line { line: usize, source: serde_json::Error },
    #[error("the recording has no end: it was cut off")]
    Unfinished,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    end: End,
}

impl Recording {
    /// # Errors
    /// When it can't be written as JSON, which does not happen.
    pub fn to_lines(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&self.head)?;
        for event in &self.events {
            text.push('\n');
            text += &serde_json::to_string(event)?;
        }
        text.push('\n');
        text += &serde_json::to_string(&Last { end: self.end.clone() })?;
        text.push('\n');
        Ok(text)
    }

    /// # Errors
    /// See [`FileError`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        #[derive(Deserialize)]
        struct Versioned {
            recording: u32,
        }
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let (line, first) = lines.next().unwrap_or((1, ""));
        let bad = |line| move |source| FileError::Line { line, source };
        match serde_json::from_str(first).map_err(bad(line))? {
            Versioned { recording: VERSION } => {}
            Versioned { recording } => return Err(FileError::Version(recording)),
        }
        let head = serde_json::from_str(first).map_err(bad(line))?;
        let mut events = Vec::new();
        for (line, text) in lines {
            if text.starts_with(r#"{"end""#) {
                let Last { end } = serde_json::from_str(text).map_err(bad(line))?;
                return Ok(Self { head, events, end });
            }
            events.push(serde_json::from_str(text).map_err(bad(line))?);
        }
        Err(FileError::Unfinished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recording() -> Recording {
        let head = json!({"recording": 1, "gateway": "0.1.0", "invocation": "inv-1", "command": "cmd-1",
            "agent": "web-01", "caller": "alice", "verb": "try", "plugin": "tried", "version": "1.0.0",
            "digest": "ab", "mode": "apply", "args": {"name": "x"}, "started_ms": 7});
        let call = Event::Call {
            name: "state.get".into(),
            args: vec![json!("k")],
            answer: Some(json!({"Ok": null})),
            effects: 0,
        };
        Recording {
            head: serde_json::from_value(head).unwrap(),
            events: vec![Event::Wall(5), Event::Random("00ff".into()), call],
            end: End { outcome: Outcome::Succeeded, failure: None, result: None, effects: vec![], truncated: false },
        }
    }

    #[test]
    fn it_reads_as_it_was_written_and_only_whole() {
        let text = recording().to_lines().unwrap();
        assert_eq!(Recording::parse(&text).unwrap(), recording());
        let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
        assert!(matches!(Recording::parse(&cut), Err(FileError::Unfinished)));
        assert!(matches!(
            Recording::parse(&text.replace("\"recording\":1", "\"recording\":2")),
            Err(FileError::Version(2))
        ));
        assert!(matches!(Recording::parse(&text.replace("wall", "moon")), Err(FileError::Line { line: 2, .. })));
        assert!(matches!(Recording::parse(""), Err(FileError::Line { line: 1, .. })));
    }
}
