//! Which plugins may run here: bytes that release keys signed, that the release repository
//! names and has not taken back, within the host owner's policy, for an API that this host
//! has, and exporting exactly the verbs that were signed. An [`AdmittedPlugin`] is the
//! proof; nothing else can be made active.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use viworks_signing::grant::Grant;
use viworks_signing::keys::PublicKey;
use viworks_signing::policy::NotTaken;
use viworks_signing::release::{Limits, Release, Verb as SignedVerb};
use viworks_signing::verify::{self, Refusal, VerifiedRelease};

use super::approval::Demand;
use crate::capabilities::{WORLDS, versions};
use crate::config::Policy;
use crate::runtime::values::Path;
use crate::runtime::values::schema::{self, Apart};
use crate::runtime::{Prepared, Verb};
use crate::trust::{Claim, Past, TrustError, View};

/// What this host's owner decided: who may release, and what at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub release_keys: Vec<PublicKey>,
    pub policy: Policy,
}

/// What a release is judged by: the owner's rules and what the repository says.
#[derive(Debug, Clone)]
pub struct Basis {
    pub rules: Arc<Rules>,
    pub view: Arc<View>,
}

/// A bundle's two files, as they will be compiled and kept.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    pub component: &'a [u8],
    pub statements: &'a str,
}

/// A release that is signed and fits this host, but was not compiled yet.
#[derive(Debug)]
pub struct Vouched {
    verified: VerifiedRelease,
    grant: Arc<Grant>,
    limits: Limits,
    demands: Vec<(String, Arc<Demand>)>,
}

/// A plugin that may run here. Made by [`Vouched::admit`] alone.
#[derive(Debug)]
pub struct AdmittedPlugin {
    vouched: Vouched,
    prepared: Prepared,
    brake: Arc<CancellationToken>,
}

#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("the release is refused ({})", .0.code())]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error(transparent)]
    Repository(#[from] TrustError),
    #[error("it needs viworks:gateway {wanted}, and this gateway has {}", versions(WORLDS))]
    HostApi { wanted: String },
    #[error("verb {verb} is signed but not exported")]
    NotExported { verb: String },
    #[error("verb {verb} is exported but not signed")]
    NotSigned { verb: String },
    #[error("verb {verb}: {what} differ from what was signed")]
    Differs {
        verb: String,
        what: &'static str,
        #[source]
        place: Option<Apart>,
    },
}

impl AdmitError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::NotTaken(error) => error.code(),
            Self::Repository(error) => error.code(),
            Self::HostApi { .. } => "E_HOST_API",
            Self::NotExported { .. } | Self::NotSigned { .. } | Self::Differs { .. } => "E_VERBS",
        }
    }
}

impl Vouched {
    /// Check who signed the bundle, what the repository says of it and what this host leaves
    /// of its requests. `plugin`: the id that was offered, if one was. `now`: the system's
    /// time, or a later one that is certain.
    ///
    /// # Errors
    /// The first check that refuses.
    pub fn check(
        bundle: Bundle<'_>,
        basis: &Basis,
        plugin: Option<&str>,
        past: Past,
        now: SystemTime,
    ) -> Result<Self, AdmitError> {
        let (rules, now) = (&basis.rules, basis.view.time(now));
        let trust = rules.policy.trust(&rules.release_keys);
        let verified = verify::verify_with(bundle.component, bundle.statements, &trust, plugin, now)?;
        let release = verified.release();
        rules.policy.takes(release)?;
        let reviewers: Vec<String> = verified.reviews().iter().flat_map(|review| review.signers()).cloned().collect();
        let claim = Claim {
            release,
            digest: verified.digest(),
            length: bundle.component.len() as u64,
            statements: bundle.statements,
            roles: [(verified.signers(), trust.release().threshold()), (&reviewers, trust.security().threshold())],
        };
        basis.view.admits(&claim, past, now)?;
        if !WORLDS.iter().any(|world| world.fits(&release.host_api)) {
            return Err(AdmitError::HostApi { wanted: release.host_api.clone() });
        }
        let grant = Arc::new(verified.grant(&rules.policy.scopes));
        let limits = verified.limits().min(rules.policy.limits);
        let demands = demands(&rules.policy, release);
        Ok(Self { verified, grant, limits, demands })
    }

    #[must_use]
    pub fn release(&self) -> &Release {
        self.verified.release()
    }

    #[must_use]
    pub fn digest(&self) -> &str {
        self.verified.digest()
    }

    #[must_use]
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What this host can hold at most, whatever release and policy say.
    #[must_use]
    pub fn within(mut self, most: Limits) -> Self {
        self.limits = self.limits.min(most);
        self
    }

    /// The last check: what was compiled from these bytes exports what was signed, with the
    /// schemas that were signed. `brake` is what ends its invocations.
    ///
    /// # Errors
    /// The first verb that is missing, too many or different.
    pub fn admit(self, prepared: Prepared, brake: Arc<CancellationToken>) -> Result<AdmittedPlugin, AdmitError> {
        let signed = &self.release().verbs;
        if let Some(verb) = prepared.verbs().keys().find(|verb| !signed.contains_key(*verb)) {
            return Err(AdmitError::NotSigned { verb: verb.clone() });
        }
        for (name, verb) in signed {
            let real = prepared.verbs().get(name).ok_or_else(|| AdmitError::NotExported { verb: name.clone() })?;
            same(verb, real).map_err(|(what, place)| AdmitError::Differs { verb: name.clone(), what, place })?;
        }
        Ok(AdmittedPlugin { vouched: self, prepared, brake })
    }
}

impl AdmittedPlugin {
    #[must_use]
    pub fn release(&self) -> &Release {
        self.vouched.release()
    }

    /// Lowercase hex SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.vouched.digest()
    }

    /// Key ids of the release keys that signed.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        self.vouched.verified.signers()
    }

    /// Whether every review lets this verb run.
    #[must_use]
    pub fn allows(&self, verb: &str) -> bool {
        self.vouched.verified.allows(verb)
    }

    /// Its request ∩ its reviews ∩ this host's policy.
    #[must_use]
    pub fn grant(&self) -> &Arc<Grant> {
        &self.vouched.grant
    }

    /// The lesser of the release's and the policy's.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.vouched.limits
    }

    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The approvals that a verb needs by this host's policy.
    #[must_use]
    pub fn demand(&self, verb: &str) -> Option<&Demand> {
        self.vouched.demands.iter().find(|(name, _)| name == verb).map(|(_, demand)| &**demand)
    }

    /// Whether its invocations were told to end: the release was revoked.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.brake.is_cancelled()
    }

    /// Let `work` run to its end. If the release is stopped meanwhile, `cancel` is told,
    /// and the work ends as a cancelled one does.
    pub async fn while_lawful<T>(&self, cancel: &CancellationToken, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.brake.cancelled() => cancel.cancel(),
        }
        work.await
    }
}

/// The verbs of this release that the owner wants approved.
fn demands(policy: &Policy, release: &Release) -> Vec<(String, Arc<Demand>)> {
    let demand = |verb: &String| {
        let approvals = policy.approvals_of(verb);
        (approvals > 0).then(|| (verb.clone(), Arc::new(Demand { approvals, keys: policy.approvals.keys.clone() })))
    };
    release.verbs.keys().filter_map(demand).collect()
}

/// Function, arguments and result. The digest binds the signed schemas to these bytes
/// already; this catches a signer whose tools read the component differently than this
/// gateway.
fn same(signed: &SignedVerb, real: &Verb) -> Result<(), (&'static str, Option<Apart>)> {
    if signed.function != real.function {
        return Err(("its function's name", None));
    }
    let params = real.params.iter().map(|param| (param.name.clone(), param.ty.clone())).collect();
    schema::object(&signed.args, params, &mut Path::default()).map_err(|at| ("its arguments", Some(at)))?;
    match &real.ok {
        Some(ty) => schema::describes(&signed.result, ty).map_err(|at| ("its result", Some(at))),
        None => Ok(()),
    }
}
