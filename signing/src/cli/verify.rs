//! `viworks-sign verify`: says whether a gateway with this policy, or one that trusts these
//! keys, would take these bytes as that plugin, and by which check it would not.

use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use viworks_signing::policy::Policy;
use viworks_signing::trust::Trust;
use viworks_signing::verify::VerifiedRelease;

use super::bundle::{Bundle, public_keys};
use super::{Error, Exit, Output, output, policy};

/// Verify a signed component, as a gateway does before it loads one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign verify dist/accounts.wasm --key keys/release.pub.pem --plugin accounts
  viworks-sign verify dist/accounts.wasm --policy policy.toml --plugin accounts --output json
Exits with 0 if verified and 1 if refused; the code (E_…) names the check. With a policy, its
signers, thresholds, reviews and plugin patterns count; keys are those that it names by id.")]
pub(crate) struct Verify {
    /// The component; its statements are beside it
    component: PathBuf,
    /// File of trusted public keys (PEM, one or more); may be given several times
    #[arg(long = "key", value_name = "PUB", required_unless_present = "policy")]
    keys: Vec<PathBuf>,
    /// A host owner's policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The plugin that this has to be
    #[arg(long, value_name = "ID")]
    plugin: String,
    /// The statements, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// A code and its reason.
struct Refused {
    code: &'static str,
    reason: String,
    digest: Option<String>,
}

impl Verify {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let known = public_keys(&self.keys)?;
        let policy = self.policy.as_ref().map(|path| policy::load(path, &known)).transpose()?;
        let trust = policy.as_ref().map_or_else(|| Trust::any_of(&known), |policy| policy.trust(&known));
        match self.verify(&trust, policy.as_ref())? {
            Ok(verified) => self.accept(&verified),
            Err(refused) => self.refuse(&refused),
        }
    }

    fn verify(&self, trust: &Trust, policy: Option<&Policy>) -> Result<Result<VerifiedRelease, Refused>, Error> {
        let refused = |code, error: &dyn std::error::Error, digest| {
            Ok(Err(Refused { code, reason: output::chain(error), digest }))
        };
        let bundle = match Bundle::read(&self.component, self.statements.as_deref())? {
            Ok(bundle) => bundle,
            Err(refusal) => return refused(refusal.code(), &refusal, None),
        };
        let digest = || Some(hex::encode(Sha256::digest(&bundle.component)));
        let verified = match bundle.verify(trust, &self.plugin) {
            Ok(verified) => verified,
            Err(refusal) => return refused(refusal.code(), &refusal, digest()),
        };
        match policy.map(|policy| policy.takes(verified.release())) {
            Some(Err(not)) => refused(not.code(), &not, digest()),
            _ => Ok(Ok(verified)),
        }
    }

    fn accept(&self, verified: &VerifiedRelease) -> Result<Exit, Error> {
        let release = verified.release();
        let reviewers: Vec<&str> =
            verified.reviews().iter().flat_map(|review| review.signers()).map(String::as_str).collect();
        let builders: Vec<&str> =
            verified.provenance().iter().map(|made| made.run_details.builder.id.as_str()).collect();
        if self.output == Output::Json {
            output::json(&json!({
                "result": "verified",
                "code": "OK",
                "plugin": release.plugin,
                "version": release.version,
                "epoch": release.epoch,
                "sequence": release.sequence,
                "digest": verified.digest(),
                "keyids": verified.signers(),
                "reviewers": reviewers,
                "builders": builders,
            }))?;
            return Ok(Exit::Done);
        }
        let mut lines = vec![
            format!("VERIFIED  {} {}", release.plugin, release.version),
            format!("sequence  {}.{}", release.epoch, release.sequence),
            format!("sha256    {}", verified.digest()),
            format!("key ids   {}", verified.signers().join(", ")),
        ];
        if !reviewers.is_empty() {
            lines.push(format!("reviewed  {}", reviewers.join(", ")));
        }
        lines.extend(builders.iter().map(|builder| format!("built by  {builder}")));
        output::lines(lines)?;
        Ok(Exit::Done)
    }

    fn refuse(&self, refused: &Refused) -> Result<Exit, Error> {
        match self.output {
            Output::Json => output::json(&json!({
                "result": "refused",
                "code": refused.code,
                "reason": refused.reason,
                "digest": refused.digest,
                "keyids": [],
                "sequence": null,
            }))?,
            Output::Text => output::lines([format!("REFUSED  {}: {}", refused.code, refused.reason)])?,
        }
        Ok(Exit::Refused)
    }
}
