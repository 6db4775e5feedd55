//! One request, from what was asked to what is answered: the policy as it is now → what the
//! request names, judged by it → the provider. Believes nothing that the gateway checked.
//! Every change is filed before and after it, every refusal with its code.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::RwLock;
use viworks_signing::grant::Grant;

use super::judge::judge;
use super::seal::{Seal, Unsealed};
use super::wire::{Behalf, Hello, MAX_PLANNED, PROTOCOL, Refusal, Reply, Request};
use crate::capabilities::containers::granted as containers_granted;
use crate::capabilities::{secrets, vpn};
use crate::config::BrokerConfig;
use crate::effects::Effect;
use crate::failure::Failure;
use crate::host::Host;

/// Who asks, by the kernel's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

#[derive(Debug)]
pub(crate) struct Broker {
    config: BrokerConfig,
    host: Arc<Host>,
    seal: Seal,
    /// Held shared by what is being applied, alone by who looks whether it was.
    at_work: HashMap<&'static str, Arc<RwLock<()>>>,
}

/// Why a request got no answer.
enum Denied {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Unsealed> for Denied {
    fn from(unsealed: Unsealed) -> Self {
        Self::Refused(Refusal { code: "unsealed".into(), rule: None, message: unsealed.to_string() })
    }
}

/// What a judge says is a refusal, unless the host could not be asked.
fn judged(failure: Failure) -> Denied {
    match failure {
        Failure::Denied { rule, message, .. } => {
            Denied::Refused(Refusal { code: "policy".into(), rule: Some(rule), message })
        }
        Failure::InvalidArgument(message) => Denied::Refused(Refusal { code: "invalid".into(), rule: None, message }),
        other => Denied::Failed(other),
    }
}

impl Peer {
    pub(crate) fn refused(self, request: &str, refusal: &Refusal) {
        let (Self { uid, pid }, Refusal { code, rule, message }) = (self, refusal);
        let rule = rule.as_deref().unwrap_or_default();
        tracing::warn!(target: "audit", uid, pid, request, decision = "refused", code, rule, why = message, "request");
    }
}

impl Broker {
    pub(crate) fn new(config: BrokerConfig, seal: Seal) -> Self {
        let host = Arc::new(Host::new(&config.providers));
        let at_work = ["accounts", "vpn", "containers", "scripts"].map(|name| (name, Arc::default()));
        Self { config, host, seal, at_work: at_work.into() }
    }

    pub(crate) fn hello(&self) -> Hello {
        let policy = self.config.policy().map(|(_, digest)| digest).map_err(|faults| faults.to_string());
        Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), policy }
    }

    /// Judge and do what is asked.
    pub(crate) async fn answer(&self, request: Request, peer: Peer) -> Reply {
        let kind = request.kind();
        match self.done(request, peer).await {
            Ok(value) => Reply::Done(value),
            Err(Denied::Failed(failure)) => Reply::Failed(failure),
            Err(Denied::Refused(refusal)) => {
                peer.refused(kind, &refusal);
                Reply::Refused(refusal)
            }
        }
    }

    async fn done(&self, request: Request, peer: Peer) -> Result<Value, Denied> {
        let (policy, _) = self.config.policy().map_err(|faults| {
            let message: String = faults.to_string().chars().take(1_000).collect();
            Denied::Refused(Refusal { code: "unavailable".into(), rule: None, message })
        })?;
        let grant = Grant::of_policy(&policy.scopes);
        let host = &self.host;
        match request {
            Request::Foresee { effect, planned } => {
                let (effect, planned) = (self.taken(*effect, &grant).await?, self.all_taken(planned, &grant).await?);
                json(&self.seal.foreseen(effect.foresee(host, &planned).await?)?)
            }
            Request::Trace { effect } => {
                let effect = self.taken(*effect, &grant).await?;
                let at_work = self.at_work.get(effect.capability()).map(Arc::clone).unwrap_or_default();
                let _nobody_is = at_work.write_owned().await;
                json(&self.seal.trace(effect.trace(host).await?)?)
            }
            Request::Apply { behalf, effect } => {
                let effect = self.taken(*effect, &grant).await?;
                Ok(self.apply(effect, behalf, peer).await?)
            }
            Request::Locks {} => host.accounts.locks(&grant).await.map_err(judged),
            Request::Keys { name, uid } => json(&host.accounts.keys_within(&name, uid, &grant).await.map_err(judged)?),
            Request::Peers { kind, planned } => {
                let scope = vpn::Provider::granted(kind, &grant).map_err(judged)?;
                let planned = self.all_taken(planned, &grant).await?;
                let mut peers = host.vpn.list(kind, &planned).await?;
                peers.retain(|peer| vpn::Provider::covers(scope, &peer.name));
                json(&peers)
            }
            Request::Peer { kind, name, planned } => {
                let scope = vpn::Provider::granted(kind, &grant).map_err(judged)?;
                if !vpn::Provider::covers(scope, &name) {
                    let message = format!("peer {name}");
                    let rule = Some("policy: vpn.names".to_owned());
                    return Err(Denied::Refused(Refusal { code: "policy".into(), rule, message }));
                }
                json(&host.vpn.find(kind, &name, &self.all_taken(planned, &grant).await?).await?)
            }
            Request::Engine {} => {
                containers_granted(&grant).map_err(judged)?;
                json(&host.containers.version().await?)
            }
            Request::Containers { name } => host.containers.list_within(name.as_deref(), &grant).await.map_err(judged),
            Request::Container { id } => host.containers.inspect_within(&id, &grant).await.map_err(judged),
            Request::Script { name, sha256 } => {
                host.scripts.judge_name(&name, &sha256, &grant).map_err(judged)?;
                json(&host.scripts.there(&name, &sha256).await?)
            }
            Request::Secret { name } => {
                secrets::judge(&name, None, &grant).map_err(judged)?;
                json(&host.secrets.there(&name).await?)
            }
            Request::Sweep {} => {
                let swept = host.accounts.sweep().await?;
                for home in &swept {
                    let (account, uid) = (&home.account, home.uid);
                    tracing::info!(target: "audit", %account, uid, decision = "applied", "a home in quarantine expired");
                }
                json(&swept)
            }
        }
    }

    /// An effect that came from the gateway, opened and judged.
    async fn taken(&self, mut effect: Effect, grant: &Grant) -> Result<Effect, Denied> {
        self.seal.unseal(&mut effect)?;
        judge(&effect, grant, &self.host).await.map_err(judged)?;
        Ok(effect)
    }

    async fn all_taken(&self, effects: Vec<Effect>, grant: &Grant) -> Result<Vec<Effect>, Denied> {
        if effects.len() > MAX_PLANNED {
            let message = format!("more than {MAX_PLANNED} planned effects");
            return Err(Denied::Refused(Refusal { code: "invalid".into(), rule: None, message }));
        }
        let mut taken = Vec::with_capacity(effects.len());
        for effect in effects {
            taken.push(self.taken(effect, grant).await?);
        }
        Ok(taken)
    }

    async fn apply(&self, effect: Effect, behalf: Behalf, peer: Peer) -> Result<Value, Failure> {
        let at_work = self.at_work.get(effect.capability()).map(Arc::clone).unwrap_or_default();
        let _at_work = at_work.read_owned().await;
        let (Peer { uid, pid }, Behalf { invocation, seq, back }) = (peer, behalf);
        let (kind, summary) = (effect.kind(), effect.summary());
        let file = |decision: &str, why: &str| {
            tracing::info!(
                target: "audit", uid, pid, request = "apply", %invocation, seq, back, kind, %summary, decision, why,
                "effect"
            );
        };
        file("begun", "");
        let happened = effect.happen(&self.host).await;
        match &happened {
            Ok(_) => file("applied", ""),
            Err(failure) => file("failed", &failure.to_string()),
        }
        happened
    }
}

fn json(answer: &impl Serialize) -> Result<Value, Denied> {
    serde_json::to_value(answer).map_err(|e| Denied::Failed(Failure::Failed(e.to_string())))
}
