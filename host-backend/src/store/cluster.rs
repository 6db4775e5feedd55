//! What several instances of the backend share: who of them is alive, which holds whose
//! session, who does which background work, and numbers that grow with whatever instances
//! keep in memory. Times are the database's own, so that instances' clocks need not agree.
//! Nothing here orders anything: commands and results are in their own tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::{Store, StoreError};

/// Rows of one statement over sessions or commands.
pub const MOST: u32 = 1_000;

/// An instance that is dead so long is forgotten: its agents are offline then. Whoever
/// takes over a session does not wait for that.
pub const BURY_AFTER: Duration = Duration::from_secs(10);

/// Whose session it is: an instance, and the session's number there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub instance: Arc<str>,
    pub session: u64,
}

/// An instance says that it lives.
#[derive(Debug, Clone)]
pub struct Beat {
    pub instance: Arc<str>,
    /// Of this very process: two processes must not have one name.
    pub boot: String,
    /// The id of the key that signs its warrants.
    pub warrant_key: String,
    pub ttl: Duration,
}

/// What a beat came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beaten {
    /// Its lease had ended: others may have taken its sessions.
    pub lapsed: bool,
    /// Another process lives under this name; nothing was changed.
    pub taken: bool,
    /// Instances that were forgotten, and whose agents are offline.
    pub buried: Vec<String>,
    /// The others that live, each with the id of its warrant key.
    pub others: Vec<(String, String)>,
}

/// A change to what is shared; answered by [`Done`].
#[derive(Debug, Clone)]
pub enum Change {
    Beat(Beat),
    /// It goes for good: its sessions and leases go with it.
    Leave {
        instance: Arc<str>,
    },
    /// Hold `name` for `ttl` from now, unless another instance does.
    Lease {
        name: String,
        instance: Arc<str>,
        ttl: Duration,
    },
    Yield {
        name: String,
        instance: Arc<str>,
    },
    /// Enter sessions of this instance, unless a living one has others of those agents.
    Claim {
        instance: Arc<str>,
        sessions: Vec<(AgentId, u64)>,
    },
    /// Ask the agent's instance whether its session is alive.
    Challenge {
        agent: AgentId,
    },
    /// These are.
    Confirm {
        instance: Arc<str>,
        sessions: Vec<(AgentId, u64)>,
    },
    /// These are no more.
    Disown {
        instance: Arc<str>,
        sessions: Vec<(AgentId, u64)>,
    },
    /// The group's name; `candidate` becomes it if there is none.
    Name {
        candidate: String,
    },
}

#[derive(Debug)]
pub enum Done {
    Beaten(Beaten),
    /// Whether it was done.
    Is(bool),
    /// Those that are this instance's now.
    Agents(Vec<AgentId>),
    Name(String),
}

/// Who holds an agent's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub instance: String,
    pub session: u64,
    /// Asked whether it is alive, and not answered yet.
    pub challenged: bool,
    /// Its instance's lease holds.
    pub alive: bool,
}

/// What an agent of this instance is owed, and has not been sent, or not lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub agent: AgentId,
    pub invocation: InvocationId,
    pub queued: bool,
}

/// How far a command has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub command: CommandId,
    pub last_seq: u64,
    pub finished: bool,
}

/// By what they count: `catalog`, `repository`, `tokens`, `agents`.
pub type Stamps = BTreeMap<String, u64>;

impl Store {
    /// Hold the lease `name` for `ttl` from now; `false`: another instance holds it.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn lease(&self, name: &str, instance: &Arc<str>, ttl: Duration) -> Result<bool, StoreError> {
        self.is(Change::Lease { name: name.to_owned(), instance: instance.clone(), ttl }).await
    }

    /// Give it back, if it is this instance's.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn unlease(&self, name: &str, instance: &Arc<str>) -> Result<bool, StoreError> {
        self.is(Change::Yield { name: name.to_owned(), instance: instance.clone() }).await
    }

    /// # Errors
    /// When the store refuses.
    pub async fn beat(&self, beat: Beat) -> Result<Beaten, StoreError> {
        match self.share(Change::Beat(beat)).await? {
            Done::Beaten(beaten) => Ok(beaten),
            other => Err(unfit(&other)),
        }
    }

    /// # Errors
    /// When the store refuses.
    pub async fn leave(&self, instance: &Arc<str>) -> Result<(), StoreError> {
        self.is(Change::Leave { instance: instance.clone() }).await.map(drop)
    }

    /// Enter sessions; answers whose are entered.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn claim_sessions(
        &self,
        instance: &Arc<str>,
        sessions: Vec<(AgentId, u64)>,
    ) -> Result<Vec<AgentId>, StoreError> {
        match self.share(Change::Claim { instance: instance.clone(), sessions }).await? {
            Done::Agents(agents) => Ok(agents),
            other => Err(unfit(&other)),
        }
    }

    /// `false`: nobody holds a session of this agent.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn challenge(&self, agent: &AgentId) -> Result<bool, StoreError> {
        self.is(Change::Challenge { agent: agent.clone() }).await
    }

    /// # Errors
    /// When the store refuses.
    pub async fn confirm(&self, instance: &Arc<str>, sessions: Vec<(AgentId, u64)>) -> Result<(), StoreError> {
        self.is(Change::Confirm { instance: instance.clone(), sessions }).await.map(drop)
    }

    /// # Errors
    /// When the store refuses.
    pub async fn disown(&self, instance: &Arc<str>, sessions: Vec<(AgentId, u64)>) -> Result<(), StoreError> {
        self.is(Change::Disown { instance: instance.clone(), sessions }).await.map(drop)
    }

    /// The name of the group of instances over this database: the same for all of them.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn group_name(&self, candidate: String) -> Result<String, StoreError> {
        match self.share(Change::Name { candidate }).await? {
            Done::Name(name) => Ok(name),
            other => Err(unfit(&other)),
        }
    }

    async fn is(&self, change: Change) -> Result<bool, StoreError> {
        match self.share(change).await? {
            Done::Is(is) => Ok(is),
            other => Err(unfit(&other)),
        }
    }
}

fn unfit(other: &Done) -> StoreError {
    StoreError::Corrupt { what: "answer", text: format!("{other:?}") }
}

#[cfg(test)]
mod tests;
