//! The self-test before a plugin becomes active: one instance in a fresh store, under the
//! limits that it will have, with nothing granted. Refuses what can't even begin here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use viworks_protocol::id::{IdError, InvocationId};
use viworks_signing::grant::Grant;
use viworks_signing::release::{EffectClass, Limits};

use super::invoke::Invocation;
use super::prepared::Prepared;
use crate::capabilities::{Facts, Progress};
use crate::effects::Recorder;
use crate::host::{Host, HostConfig};
use crate::journal::{Journal, JournalError};

/// An instance that takes longer does not become active.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("an instance could not be made under its limits")]
    Instance(#[source] wasmtime::Error),
    #[error("verb {verb} is not a function of the instance")]
    Function { verb: String },
    #[error("the self-test has no id")]
    Id(#[from] IdError),
    #[error("an instance was not ready after {} seconds", DEADLINE.as_secs())]
    Deadline,
}

impl Prepared {
    /// Make an instance and look each verb's function up in it. Nothing of the host can be
    /// reached from it.
    ///
    /// # Errors
    /// What kept it from being ready.
    pub async fn try_out(&self, limits: Limits) -> Result<(), TrialError> {
        tokio::time::timeout(DEADLINE, self.instance(limits)).await.map_err(|_| TrialError::Deadline)?
    }

    async fn instance(&self, limits: Limits) -> Result<(), TrialError> {
        let mut store = self.store(nobody(limits)?);
        let control = store.data().control.clone();
        let running = self.runtime.running();
        // Metered, or the thread's whole life would count against its cpu time.
        let instance = control.metered(self.pre.instantiate_async(&mut store)).await.map_err(TrialError::Instance)?;
        drop(running);
        match self.verbs().iter().find(|(_, verb)| instance.get_func(&mut store, verb.export).is_none()) {
            Some((verb, _)) => Err(TrialError::Function { verb: verb.clone() }),
            None => Ok(()),
        }
    }
}

/// An invocation of nobody's, without a grant, a journal or a host of its own.
pub(crate) fn nobody(limits: Limits) -> Result<Invocation, IdError> {
    let host = Arc::new(Host::new(&HostConfig::default()));
    let journal = Journal::unusable(JournalError::Stopped);
    let id: InvocationId = format!("inv-{:032x}", 0).parse()?;
    let facts = Facts {
        invocation: id.to_string(),
        command: String::new(),
        agent: String::new(),
        caller: String::new(),
        verb: String::new(),
        plugin: String::new(),
        deadline: Instant::now() + DEADLINE,
    };
    Ok(Invocation {
        facts,
        grant: Arc::new(Grant::default()),
        host: host.clone(),
        recorder: Recorder::new(id, EffectClass::Read, journal, host),
        limits,
        cancel: CancellationToken::new(),
        progress: Progress::silent(),
    })
}
