//! One container as the engine just described it. Refuses descriptions without what
//! decisions are made on: id, name, state, times.

use std::collections::BTreeMap;

use bollard::models::ContainerInspectResponse;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::wit::viworks::gateway::containers as wit;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    /// The engine's word, in lower case.
    pub(super) state: String,
    /// Unix seconds.
    pub(super) created: i64,
    /// Unix seconds: when it last stopped, if it ran and does not run now.
    pub(super) stopped: Option<i64>,
    pub(super) labels: BTreeMap<String, String>,
}

/// In these states a container does something, or is about to.
const ALIVE: [&str; 5] = ["running", "paused", "restarting", "stopping", "removing"];

impl Container {
    pub(super) fn of(answer: ContainerInspectResponse) -> Option<Self> {
        let state = answer.state?;
        let status = state.status?.to_string();
        let alive = ALIVE.contains(&status.as_str()) || state.running == Some(true);
        // The engine says "never" as year 1.
        let finished = state.finished_at.as_deref().and_then(unix).filter(|at| *at > 0);
        let config = answer.config;
        let (image, labels) = config.map(|c| (c.image, c.labels)).unwrap_or_default();
        let id = answer.id.filter(|id| (12..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some(Self {
            id,
            name: answer.name?.trim_start_matches('/').to_owned(),
            image: image.or(answer.image).unwrap_or_default(),
            state: if alive && !ALIVE.contains(&status.as_str()) { "running".into() } else { status },
            created: unix(&answer.created?)?,
            stopped: finished.filter(|_| !alive),
            labels: labels.unwrap_or_default().into_iter().collect(),
        })
    }

    pub(super) fn alive(&self) -> bool {
        ALIVE.contains(&self.state.as_str())
    }

    /// `key` or `key=value`.
    pub(super) fn has_label(&self, wanted: &str) -> bool {
        match wanted.split_once('=') {
            None => self.labels.contains_key(wanted),
            // A key may hold `=` only in its value here: keys of the engine never do.
            Some((key, value)) => self.labels.get(key).is_some_and(|v| v == value),
        }
    }

    /// Seconds since it stopped, or since its creation if it never ran or runs.
    pub(super) fn age(&self, now: i64) -> u32 {
        seconds(now, self.stopped.unwrap_or(self.created))
    }

    pub(super) fn shown(self, now: i64) -> wit::Container {
        wit::Container {
            age_secs: seconds(now, self.created),
            stopped_secs: self.stopped.map(|at| seconds(now, at)),
            id: self.id,
            name: self.name,
            image: self.image,
            state: self.state,
            labels: self.labels.into_iter().map(|(key, value)| wit::Label { key, value }).collect(),
        }
    }
}

/// A clock that was set back makes nothing older.
fn seconds(now: i64, then: i64) -> u32 {
    u32::try_from(now.saturating_sub(then).max(0)).unwrap_or(u32::MAX)
}

fn unix(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

pub(super) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
