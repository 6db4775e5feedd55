//! Every change to releases, rollouts and what goes with them: values that the writer
//! commits, each whole or not at all. Whether a change is allowed was decided by the
//! catalogue, which makes one at a time.

use bytes::Bytes;
use viworks_protocol::id::AgentId;

use super::model::{AuditEntry, Rollout, Standing};

#[derive(Debug, Clone)]
pub enum Change {
    /// A held release is approved: it stands as `to` now.
    Approve { digest: String, to: Standing, now_ms: u64, audit: AuditEntry },
    /// A release never runs again. Its plugin falls back to `fallback`, if given, where the
    /// killed one was active; a rollout that has to do with it ends as `rollout` says.
    Kill {
        digest: String,
        note: String,
        fallback: Option<String>,
        rollout: Option<Box<Progress>>,
        now_ms: u64,
        audit: AuditEntry,
    },
    /// A rollout begins.
    Begin(Box<Progress>),
    /// A rollout comes on, or ends.
    Proceed(Box<Progress>),
    /// What releases did: digest, name, tally.
    Tallies(Vec<(String, String, String)>),
    /// Files of the release repository; `None` removes one.
    Mirror(Vec<(String, Option<Bytes>)>),
}

/// A rollout as it is from now on.
#[derive(Debug, Clone)]
pub struct Progress {
    pub rollout: Rollout,
    /// New members, of the stage at hand.
    pub members: Vec<AgentId>,
    /// Whether they are the only ones from now on.
    pub anew: bool,
    /// What is counted from now on: digest, name, tally.
    pub tallies: Vec<(String, String, String)>,
    /// Where its release stands from now on, if that changes.
    pub standing: Option<Standing>,
    pub audit: AuditEntry,
}

impl Progress {
    /// Nothing but the rollout itself changes.
    #[must_use]
    pub fn of(rollout: Rollout, audit: AuditEntry) -> Self {
        Self { rollout, members: Vec::new(), anew: false, tallies: Vec::new(), standing: None, audit }
    }
}
