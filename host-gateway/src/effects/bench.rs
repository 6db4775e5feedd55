//! For tests of capabilities: a call with a grant of one's choice on a host of one's choice,
//! with a real journal behind it. Guests are left out; gate, recorder and providers are real.

use std::sync::Arc;
use std::time::{Duration, Instant};

use viworks_protocol::id::InvocationId;
use viworks_signing::grant::{Grant, Scopes};
use viworks_signing::release::{EffectClass, Limits};

use super::{Effect, Inverse, PlanSubject, Recorder};
use crate::capabilities::{Call, Facts};
use crate::failure::Failure;
use crate::host::{Host, HostConfig};
use crate::journal::Journal;

/// A host, and a directory for everything that a test needs on disk.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: Arc<Host>,
    journal: Journal,
}

impl Bench {
    /// `configure` is given the directory and the defaults.
    pub(crate) fn new(configure: impl FnOnce(&std::path::Path, &mut HostConfig)) -> Self {
        let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
        let mut config = HostConfig::default();
        config.state.file = Some(dir.path().join("plugin-state.db"));
        configure(dir.path(), &mut config);
        let journal = match Journal::open(dir.path()) {
            Ok(journal) => journal,
            Err(e) => panic!("no journal: {e}"),
        };
        Self { host: Arc::new(Host::new(&config)), journal, dir }
    }

    /// An invocation of the plugin `tried`, admitted and about to run.
    pub(crate) async fn call(&self, release: &Scopes, policy: &Scopes, class: EffectClass) -> Call {
        let mut noise = [0_u8; 16];
        assert!(getrandom::fill(&mut noise).is_ok());
        let id = format!("inv-{}", hex::encode(noise));
        let Ok(invocation) = InvocationId::try_from(id.clone()) else { panic!("{id} is no invocation id") };
        let admitted = self.journal.admit(&invocation, u64::MAX >> 1).await;
        assert!(admitted.is_ok(), "{admitted:?}");
        let facts = Facts {
            invocation: id,
            command: "cmd-00000000000000000000000000000000".into(),
            agent: "web-01".into(),
            caller: "ann".into(),
            verb: "try".into(),
            plugin: "tried".into(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let recorder = Recorder::new(invocation, class, self.journal.clone(), Arc::clone(&self.host));
        let limits = Limits { host_calls: 1_000, ..Limits::default() };
        Call::new(facts, Arc::new(Grant::of(release, [], policy)), Arc::clone(&self.host), recorder, &limits)
    }

    /// The same of a plan.
    pub(crate) async fn plan(&self, release: &Scopes, policy: &Scopes) -> Call {
        let mut call = self.call(release, policy, EffectClass::Irreversible).await;
        let (undo, args_sha256) = (None, "0".repeat(64));
        let subject = PlanSubject { plugin: "tried".into(), verb: "try".into(), args_sha256, undo };
        call.recorder = call.recorder.planning(subject);
        call
    }

    /// Apply an effect without gate and journal, as taking back does.
    pub(crate) async fn apply(&self, effect: &Effect) -> Result<Applied, Failure> {
        let foreseen = effect.clone().foresee(&self.host, &[]).await?;
        let answer = foreseen.effect.happen(&self.host).await?;
        Ok(Applied { answer, inverse: foreseen.effect.inverse(), effect: foreseen.effect })
    }
}

/// An effect that happened, as it was foreseen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Applied {
    pub(crate) effect: Effect,
    pub(crate) answer: serde_json::Value,
    pub(crate) inverse: Inverse,
}
