//! `viworks-sign review`: a security review as one more line of a bundle. Refuses a bundle
//! that does not verify: what is reviewed is what the release keys signed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use std::path::PathBuf;
use std::time::SystemTime;
use viworks_signing::dsse::Envelope;
use viworks_signing::publish::sign_review;
use viworks_signing::release::Release;
use viworks_signing::review::{Allowance, PREDICATE_TYPE, Statement, statement};
use viworks_signing::signer::Signer;
use viworks_signing::trust::{Role, Trust};

use super::bundle::{Bundle, public_keys};
use super::keyref::Password;
use super::{Error, Exit, files, output};

/// Review a signed release: adds a line to its statements that says the most it may do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign review dist/accounts.wasm --plugin accounts --release-key keys/release.pub.pem --key file:keys/security.key.pem
  viworks-sign review dist/vpn.wasm --plugin vpn --release-key keys/release.pub.pem --allow allow.toml --notes 'read only' \\
    --key 'pkcs11:token=security;object=review?module-path=/usr/lib/hsm.so&pin-source=fd:3' 3<pin
allow.toml is written like a policy: verbs = [\"add_vpn_user\"], [capabilities.vpn], [limits].
Without it the review allows all that the release asks for. A key's earlier review is replaced.")]
pub(crate) struct Review {
    /// The component; its statements are beside it
    component: PathBuf,
    /// The plugin that this has to be
    #[arg(long, value_name = "ID")]
    plugin: String,
    /// File of public keys (PEM) that may release; may be given several times
    #[arg(long, value_name = "PUB", required = true)]
    release_key: Vec<PathBuf>,
    /// The reviewer's private key: file:PATH, a path, env:VAR or a pkcs11: URI
    #[arg(long = "key", value_name = "REF", required = true)]
    keys: Vec<String>,
    /// TOML with the verbs, capabilities and limits that are allowed
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
    /// What the reviewer wants to say
    #[arg(long, value_name = "TEXT", default_value = "")]
    notes: String,
    /// The statements, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
}

impl Review {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let releasers = public_keys(&self.release_key)?;
        let trust = Trust::any_of(&releasers);
        let (bundle, verified) = Bundle::verified(&self.component, self.statements.as_deref(), &trust, &self.plugin)?;
        let allowance = self.allowance(verified.release())?;
        let signers = self.password.signers(&self.keys)?;
        let keys: Vec<&dyn Signer> = signers.iter().map(AsRef::as_ref).collect();

        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let digests = (verified.digest(), verified.payload_digest());
        let review = statement(verified.release(), digests.0, digests.1, allowance, &now, &self.notes);
        let line =
            sign_review(&review, &keys).map_err(|source| Error::Publish { path: self.component.clone(), source })?;
        let ids: Vec<String> = keys.iter().map(|key| key.public().id()).collect();
        let kept = bundle.statements.lines().filter(|line| !is_review_of(line, &ids));
        let statements = kept.map(|line| format!("{line}\n")).chain([line.clone()]).collect();

        // It must count where it is asked for.
        let reviewers = Role::new(1, keys.iter().map(|key| key.public())).unwrap_or_default();
        let trust = Trust::new(trust.release().clone(), reviewers)
            .map_err(|source| Error::Roles { path: self.component.clone(), source })?;
        let bundle = Bundle { statements, ..bundle };
        bundle.verify(&trust, &self.plugin).map_err(|source| Error::Unverified { source })?;
        files::replace(&bundle.path, bundle.statements.as_bytes())?;
        output::lines(self.told(&review, &ids, &bundle))?;
        Ok(Exit::Done)
    }

    fn allowance(&self, release: &Release) -> Result<Allowance, Error> {
        let Some(path) = &self.allow else { return Ok(Allowance::all(release)) };
        let text = files::read_text(path, files::MAX_TEXT)?;
        Allowance::parse(&text, release).map_err(|source| Error::Manifest { path: path.clone(), source })
    }

    fn told(&self, review: &Statement, ids: &[String], bundle: &Bundle) -> Vec<String> {
        let review = &review.predicate;
        let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let verbs = list(review.verbs.iter().map(String::as_str).collect());
        vec![
            format!("reviewed      {} {}", review.plugin, review.version),
            format!("verbs         {verbs}"),
            format!("capabilities  {}", list(review.capabilities.names())),
            format!("statement     {}", bundle.path.display()),
            format!("key ids       {}", ids.join(", ")),
        ]
    }
}

/// A review by nobody but these keys. The line need not verify: it is only left out.
fn is_review_of(line: &str, ids: &[String]) -> bool {
    let read = || {
        let envelope: Envelope = serde_json::from_str(line).ok()?;
        let payload: serde_json::Value = serde_json::from_slice(&STANDARD.decode(&envelope.payload).ok()?).ok()?;
        let by = envelope.signatures.iter().all(|signature| ids.contains(&signature.keyid));
        Some(payload["predicateType"] == PREDICATE_TYPE && by)
    };
    read() == Some(true)
}
