//! `viworks-sign verify`: says whether a gateway that trusts these keys would take these
//! bytes as that plugin, and by which check it would not.

use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::keys::PublicKey;
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS, Refusal, VerifiedRelease, verify};

use super::{Error, Exit, Output, files, output};

/// Verify a signed component, as a gateway does before it loads one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign verify dist/accounts.wasm --key keys/release.pub.pem --plugin accounts
  viworks-sign verify dist/accounts.wasm --key keys/release.pub.pem --plugin accounts --output json
Exits with 0 if verified and 1 if refused; the code (E_…) names the check.")]
pub(crate) struct Verify {
    /// The component; its statements are beside it
    component: PathBuf,
    /// File of trusted public keys (PEM, one or more); may be given several times
    #[arg(long = "key", value_name = "PUB", required = true)]
    keys: Vec<PathBuf>,
    /// The plugin that this has to be
    #[arg(long, value_name = "ID")]
    plugin: String,
    /// The statements, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Verify {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let trusted = self.trusted()?;
        match self.verify(&trusted)? {
            Ok(verified) => self.accept(&verified),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// A file over its cap is refused as a gateway refuses it: not an error of reading.
    fn verify(&self, trusted: &[PublicKey]) -> Result<Result<VerifiedRelease, Refusal>, Error> {
        let path = self.statements.clone().unwrap_or_else(|| beside(&self.component));
        let size = |what, max| Refusal::Size { what, bytes: max + 1, max };
        let component = match files::read(&self.component, MAX_COMPONENT) {
            Err(Error::TooLarge { max, .. }) => return Ok(Err(size("component", max))),
            read => read?,
        };
        let statements = match files::read_text(&path, MAX_STATEMENTS) {
            Err(Error::TooLarge { max, .. }) => return Ok(Err(size("statements", max))),
            read => read?,
        };
        Ok(verify(&component, &statements, trusted, Some(&self.plugin), SystemTime::now()))
    }

    fn trusted(&self) -> Result<Vec<PublicKey>, Error> {
        let mut trusted = Vec::new();
        for path in &self.keys {
            let pem = files::read_text(path, files::MAX_TEXT)?;
            let keys = PublicKey::all_from_pem(&pem).map_err(|source| Error::Public { path: path.clone(), source })?;
            trusted.extend(keys);
        }
        Ok(trusted)
    }

    fn accept(&self, verified: &VerifiedRelease) -> Result<Exit, Error> {
        let release = verified.release();
        match self.output {
            Output::Json => output::json(&json!({
                "result": "verified",
                "code": "OK",
                "plugin": release.plugin,
                "version": release.version,
                "epoch": release.epoch,
                "sequence": release.sequence,
                "digest": verified.digest(),
                "keyids": verified.signers(),
            }))?,
            Output::Text => output::lines([
                format!("VERIFIED  {} {}", release.plugin, release.version),
                format!("sequence  {}.{}", release.epoch, release.sequence),
                format!("sha256    {}", verified.digest()),
                format!("key ids   {}", verified.signers().join(", ")),
            ])?,
        }
        Ok(Exit::Done)
    }

    fn refuse(&self, refusal: &Refusal) -> Result<Exit, Error> {
        let reason = output::chain(refusal);
        match self.output {
            Output::Json => output::json(&json!({
                "result": "refused",
                "code": refusal.code(),
                "reason": reason,
                "digest": null,
                "keyids": [],
                "sequence": null,
            }))?,
            Output::Text => output::lines([format!("REFUSED  {}: {reason}", refusal.code())])?,
        }
        Ok(Exit::Refused)
    }
}

/// `NAME.wasm.intoto.jsonl` beside `NAME.wasm`.
pub(super) fn beside(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".intoto.jsonl");
    path.into()
}
