//! What several instances of the backend share beyond their leases: which holds whose
//! session, and numbers that grow with whatever instances keep in memory. Nothing here
//! orders anything: commands and results are in their own tables.

use std::collections::BTreeMap;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::{Store, StoreError};

/// Rows of one statement over sessions.
pub const MOST: u32 = 1_000;

/// A change to what is shared; answered by [`Done`].
#[derive(Debug, Clone)]
pub enum Change {
    /// The instance begins: it has no sessions, and signs with this key.
    Begin { instance: String, warrant_key: String },
    /// Enter sessions of this instance, unless one that lives has others of those agents.
    Claim { instance: String, sessions: Vec<(AgentId, u64)> },
    /// Ask the agent's instance whether its session is alive.
    Challenge { agent: AgentId },
    /// These are.
    Confirm { instance: String, sessions: Vec<(AgentId, u64)> },
    /// These are no more; whoever has a newer one keeps it.
    Disown { instance: String, sessions: Vec<(AgentId, u64)> },
    /// The group's name; `candidate` becomes it if there is none.
    Name { candidate: String },
}

#[derive(Debug)]
pub enum Done {
    /// Whether it was done.
    Is(bool),
    /// Those that are this instance's now.
    Agents(Vec<AgentId>),
    /// Other instances that live, each with the id of its warrant key.
    Others(Vec<(String, String)>),
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
    /// It is being cancelled.
    pub cancelling: bool,
    /// Some of a batch are queued.
    pub batched: bool,
}

/// By what they count: `catalog`, `repository`, `tokens`, `agents`.
pub type Stamps = BTreeMap<String, u64>;

impl Store {
    /// Answers the other instances that live, each with the id of its warrant key.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn begin_instance(&self, instance: &str, warrant_key: &str) -> Result<Vec<(String, String)>, StoreError> {
        let change = Change::Begin { instance: instance.to_owned(), warrant_key: warrant_key.to_owned() };
        match self.share(change).await? {
            Done::Others(others) => Ok(others),
            other => Err(unfit(&other)),
        }
    }

    /// Enter sessions; answers whose are entered.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn claim_sessions(
        &self,
        instance: &str,
        sessions: Vec<(AgentId, u64)>,
    ) -> Result<Vec<AgentId>, StoreError> {
        match self.share(Change::Claim { instance: instance.to_owned(), sessions }).await? {
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
    pub async fn confirm(&self, instance: &str, sessions: Vec<(AgentId, u64)>) -> Result<bool, StoreError> {
        self.is(Change::Confirm { instance: instance.to_owned(), sessions }).await
    }

    /// # Errors
    /// When the store refuses.
    pub async fn disown(&self, instance: &str, sessions: Vec<(AgentId, u64)>) -> Result<bool, StoreError> {
        self.is(Change::Disown { instance: instance.to_owned(), sessions }).await
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
