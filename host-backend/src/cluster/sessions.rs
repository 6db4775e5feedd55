//! Whose session is where. A newcomer's session is entered in the store before this
//! instance has it; where another living instance has one of the same agent, that instance
//! is asked, through the store, whether its session answers: the same rule as within one
//! instance. Many that come together are entered by one statement.

use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use viworks_protocol::id::AgentId;

use super::instance::TTL;
use super::{Cluster, Event};
use crate::hub::Ended;
use crate::store::StoreError;

/// Newcomers that wait to be entered.
pub(super) const WAITING: usize = 4_096;
const AT_ONCE: usize = 1_024;
/// Between two looks whether the other instance has answered.
const LOOK: Duration = Duration::from_millis(200);
/// The other instance looks every other second at the latest, and its agent has three to
/// answer; a dead one's lease has ended by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// What is to be written.
#[derive(Debug)]
pub(super) enum Work {
    /// A newcomer.
    Enter {
        agent: AgentId,
        session: u64,
        entered: oneshot::Sender<Result<bool, ()>>,
    },
    Left {
        agent: AgentId,
        session: u64,
    },
}

/// Why a session is not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    #[error("another session of this agent is live")]
    Live,
    #[error("the store can't tell whether the agent has another session")]
    Unknown,
}

impl Cluster {
    /// Enter a session of this instance in the store.
    ///
    /// # Errors
    /// When another instance has one that is alive, or the store can't tell.
    pub async fn enter(&self, agent: &AgentId, session: u64) -> Result<(), Held> {
        if !self.inner.shared {
            return Ok(());
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut challenged = false;
        loop {
            if self.claim(agent, session).await? {
                if challenged {
                    self.inner.metrics.sessions_taken_over.inc();
                }
                return Ok(());
            }
            if !challenged {
                challenged = self.inner.store.challenge(agent).await.map_err(|error| unknown(agent, &error))?;
                self.publish(Event::Challenge {});
            }
            // Until it is answered, or nobody lives who could answer.
            loop {
                if Instant::now() >= deadline {
                    return Err(Held::Live);
                }
                match self.inner.store.session_owner(agent).await.map_err(|error| unknown(agent, &error))? {
                    Some(owner) if owner.alive && !owner.challenged && challenged => return Err(Held::Live),
                    Some(owner) if owner.alive => sleep(LOOK).await,
                    // It is nobody's, or a dead instance's: the next claim gets it.
                    _ => break,
                }
            }
        }
    }

    /// A session of this instance is over. What can't be told is found when somebody asks.
    pub(crate) fn left(&self, agent: &AgentId, session: u64) {
        if self.inner.shared {
            let _ = self.inner.claims.try_send(Work::Left { agent: agent.clone(), session });
        }
    }

    async fn claim(&self, agent: &AgentId, session: u64) -> Result<bool, Held> {
        let (entered, answer) = oneshot::channel();
        let claim = Work::Enter { agent: agent.clone(), session, entered };
        let asked = async {
            self.inner.claims.send(claim).await.ok()?;
            answer.await.ok()?.ok()
        };
        // The other's answer to a store that is gone: ask again later.
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten().ok_or(Held::Unknown)
    }

    /// Answer for the sessions that others ask about: who does not answer a ping ends.
    pub(super) async fn answer(&self) {
        let asked = match self.inner.store.challenged(&self.inner.instance).await {
            Ok(asked) => asked,
            Err(error) => return tracing::warn!(%error, "who is asked about can't be read"),
        };
        if asked.is_empty() {
            return;
        }
        let each = asked.into_iter().map(|(agent, session)| async move {
            let lives = self.lives(&agent, session).await;
            (agent, session, lives)
        });
        let answered = futures_util::future::join_all(each).await;
        let (lives, gone): (Vec<_>, Vec<_>) = answered.into_iter().partition(|(_, _, lives)| *lives);
        let pairs = |list: Vec<(AgentId, u64, bool)>| list.into_iter().map(|(agent, session, _)| (agent, session));
        for (done, list) in [
            ("alive", self.inner.store.confirm(&self.inner.instance, pairs(lives).collect()).await),
            ("gone", self.inner.store.disown(&self.inner.instance, pairs(gone).collect()).await),
        ] {
            if let Err(error) = list {
                tracing::warn!(done, %error, "who asked about sessions is not answered");
            }
        }
    }
}

impl Cluster {
    async fn lives(&self, agent: &AgentId, serial: u64) -> bool {
        let Some(session) = self.inner.hub.session(agent).filter(|session| session.serial == serial) else {
            return false;
        };
        let answers = self.inner.hub.answers(&session).await;
        if !answers {
            session.end(Ended { reason: "replaced", retry_after_secs: 0 });
        }
        answers
    }
}

fn unknown(agent: &AgentId, error: &StoreError) -> Held {
    tracing::warn!(%agent, %error, "a session can't be entered");
    Held::Unknown
}

/// Enter newcomers, as many at a time as wait.
pub(super) async fn run(cluster: Cluster) {
    let stop = cluster.inner.background.token().clone();
    let mut queue = cluster.inner.claims_out.lock().await;
    let mut group = Vec::with_capacity(AT_ONCE);
    while let Some(count) = stop.run_until_cancelled(queue.recv_many(&mut group, AT_ONCE)).await {
        if count == 0 {
            return;
        }
        let (mut left, mut waiting) = (Vec::new(), Vec::new());
        // The latest of an agent; one statement names each once.
        let mut latest: HashMap<AgentId, u64> = HashMap::new();
        for work in group.drain(..) {
            match work {
                Work::Left { agent, session } => left.push((agent, session)),
                Work::Enter { agent, session, entered } => {
                    let newest = latest.entry(agent.clone()).or_default();
                    *newest = session.max(*newest);
                    waiting.push((agent, entered));
                }
            }
        }
        let (store, instance) = (&cluster.inner.store, &cluster.inner.instance);
        if !left.is_empty()
            && let Err(error) = store.disown(instance, left).await
        {
            tracing::warn!(%error, "ended sessions are found when somebody asks for them");
        }
        if waiting.is_empty() {
            continue;
        }
        let list = latest.into_iter().collect();
        let done = match tokio::time::timeout(TTL, store.claim_sessions(instance, list)).await {
            Ok(Ok(mine)) => Some(mine.into_iter().collect::<HashSet<_>>()),
            Ok(Err(error)) => {
                tracing::warn!(%error, count, "sessions can't be entered");
                None
            }
            Err(_) => None,
        };
        for (agent, entered) in waiting {
            // Who has gone meanwhile does not wait for the answer.
            let _ = entered.send(done.as_ref().map(|mine| mine.contains(&agent)).ok_or(()));
        }
    }
}
