//! What instances tell each other: where to look, never what to do. An event carries ids
//! alone; whoever hears one reads the store and acts on what stands there. So a lost event
//! costs time, and a forged one a query. Refuses messages that are too large, of another
//! version, or malformed; kinds that a newer instance knows are passed over.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use viworks_protocol::id::{AgentId, CommandId};

/// Of the message, not of its events.
pub const VERSION: u32 = 1;
/// Bytes of one message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Events of one message.
pub const MAX_EVENTS: usize = 256;
/// Agents that one event names. More, and it names none: the store knows them.
pub const MAX_AGENTS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Something of this command is queued, for these agents, or for any if none is named.
    Work { command: CommandId, agents: Vec<AgentId> },
    /// What was sent to them may not have arrived: they had left.
    Missed { agents: Vec<AgentId> },
    /// The command moved: settled, cancelled, ended, or its batch has room.
    Command { command: CommandId },
    /// Somebody asks whether a session of yours is alive.
    Challenge {},
    /// Releases or rollouts changed.
    Catalog {},
    /// A release was killed: what runs of it may have to stop.
    Killed { digest: String },
    /// The release repository's mirror changed.
    Repository {},
    /// Tokens were made or revoked.
    Tokens {},
    /// Agents were revoked, or their certificates.
    Agents {},
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    v: u32,
    from: &'a str,
    events: &'a [Event],
}

#[derive(Debug, Deserialize)]
struct Read<'a> {
    v: u32,
    #[serde(borrow)]
    from: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the message is too large")]
    Size,
    #[error("the message is malformed")]
    Malformed,
    #[error("the message's version is not known")]
    Version,
}

/// The message for the first of `events`, and how many of them it holds; never none.
#[must_use]
pub fn write(from: &str, events: &[Event]) -> (String, usize) {
    let mut count = events.len().min(MAX_EVENTS);
    loop {
        let written = Written { v: VERSION, from, events: &events[..count] };
        // Ids and words are always JSON.
        let text = serde_json::to_string(&written).unwrap_or_default();
        if text.len() <= MAX_MESSAGE || count <= 1 {
            return (text, count);
        }
        count /= 2;
    }
}

/// The events of a message; none of one's own.
///
/// # Errors
/// When it is not taken.
pub fn read(own: &str, message: &[u8]) -> Result<Vec<Event>, Refused> {
    if message.len() > MAX_MESSAGE {
        return Err(Refused::Size);
    }
    let read: Read<'_> = serde_json::from_slice(message).map_err(|_| Refused::Malformed)?;
    if read.v != VERSION {
        return Err(Refused::Version);
    }
    if read.events.len() > MAX_EVENTS {
        return Err(Refused::Size);
    }
    if read.from == own {
        return Ok(Vec::new());
    }
    let events = read.events.iter().filter_map(|text| serde_json::from_str::<Event>(text.get()).ok());
    Ok(events.filter(Event::is_bounded).collect())
}

impl Event {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Work { agents, .. } | Self::Missed { agents } => agents.len() <= MAX_AGENTS,
            Self::Killed { digest } => digest.len() <= 128,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_others_and_not_by_oneself() {
        let Ok(web) = "web-1".parse::<AgentId>() else { panic!("an id") };
        let events = [
            Event::Work { command: CommandId::new(1), agents: vec![web.clone()] },
            Event::Missed { agents: vec![web] },
            Event::Command { command: CommandId::new(2) },
            Event::Killed { digest: "ab".repeat(32) },
            Event::Tokens {},
        ];
        let (text, count) = write("a", &events);
        assert_eq!(count, events.len());
        assert_eq!(read("b", text.as_bytes()), Ok(events.to_vec()));
        assert_eq!(read("a", text.as_bytes()), Ok(vec![]));
    }

    #[test]
    fn what_is_too_large_malformed_or_of_another_version_is_refused() {
        assert_eq!(read("b", &vec![b' '; MAX_MESSAGE + 1]), Err(Refused::Size));
        for text in ["", "{}", r#"{"v":1,"from":"a","events":{}}"#, "\u{0}"] {
            assert_eq!(read("b", text.as_bytes()), Err(Refused::Malformed), "{text:?}");
        }
        assert_eq!(read("b", br#"{"v":2,"from":"a","events":[]}"#), Err(Refused::Version));
        let many = vec![r#"{"tokens":{}}"#; MAX_EVENTS + 1].join(",");
        assert_eq!(read("b", format!(r#"{{"v":1,"from":"a","events":[{many}]}}"#).as_bytes()), Err(Refused::Size));
        // A kind of a newer instance, and agents beyond the bound, are passed over.
        let agents = vec![r#""x""#; MAX_AGENTS + 1].join(",");
        let text = format!(
            r#"{{"v":1,"from":"a","events":[{{"moon":{{}}}},{{"missed":{{"agents":[{agents}]}}}},{{"tokens":{{}}}}]}}"#
        );
        assert_eq!(read("b", text.as_bytes()), Ok(vec![Event::Tokens {}]));
    }

    #[test]
    fn a_message_holds_what_fits() {
        let agents: Vec<AgentId> =
            (0..MAX_AGENTS).filter_map(|n| format!("{}{n:03}", "a".repeat(50)).parse().ok()).collect();
        let events: Vec<_> = (0..100).map(|_| Event::Missed { agents: agents.clone() }).collect();
        let (text, count) = write("a", &events);
        assert!(text.len() <= MAX_MESSAGE && (1..100).contains(&count), "{count}");
        assert_eq!(read("b", text.as_bytes()).map(|events| events.len()), Ok(count));
    }
}
