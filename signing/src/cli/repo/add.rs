//! `repo add`: releases into the repository. Refuses what does not verify as a release of
//! the `releases` role's keys, or of those that are given.

use clap::Args;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use viworks_signing::keys::PublicKey;
use viworks_signing::tuf::repo::{RELEASES, Release};
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS, verify};

use super::super::bundle::beside;
use super::super::{Error, Exit, files};
use super::{Fault, Keys, change};

/// Add signed releases: each component, with its statements beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign repo add releases dist/accounts.wasm dist/vpn.wasm \\
    --key file:keys/release.key.pem --key file:keys/security.key.pem \\
    --key env:SNAPSHOT_KEY --key env:TIMESTAMP_KEY
  viworks-sign repo add releases dist/accounts.wasm --key file:keys/release.key.pem   # security signs later
The targets are PLUGIN-VERSION.wasm and PLUGIN-VERSION.wasm.intoto.jsonl.")]
pub(super) struct Add {
    /// The repository's folder
    dir: PathBuf,
    /// Components that 'viworks-sign sign' wrote
    #[arg(required = true)]
    components: Vec<PathBuf>,
    /// File of public keys that may release, where they are not those of the role releases
    #[arg(long, value_name = "PUB")]
    trust: Vec<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

impl Add {
    pub fn run(&self) -> Result<Exit, Error> {
        let mut trusted = Vec::new();
        for path in &self.trust {
            let pem = files::read_text(path, files::MAX_TEXT)?;
            let read = PublicKey::all_from_pem(&pem);
            trusted.extend(read.map_err(|source| Error::Public { path: path.clone(), source })?);
        }
        let what = format!("added {} releases", self.components.len());
        change(&self.dir, &self.keys, &what, |repo, now| {
            if trusted.is_empty() {
                let role = repo.role(RELEASES).map_err(Fault::from)?;
                trusted.extend(role.keys().values().copied());
            }
            for path in &self.components {
                let component = files::read(path, MAX_COMPONENT)?;
                let statements = files::read_text(&beside(path), MAX_STATEMENTS)?;
                // One that begins later may be added now.
                let verified = verify(&component, &statements, &trusted, None, far())
                    .map_err(|source| Error::Unverified { source })?;
                let release = verified.release();
                let release = Release {
                    plugin: &release.plugin,
                    version: &release.version,
                    epoch: release.epoch,
                    sequence: release.sequence,
                    component: &component,
                    statements: statements.as_bytes(),
                };
                repo.add(&release, now).map_err(Fault::from)?;
            }
            Ok(())
        })
    }
}

/// 9999-01-01.
fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(253_370_764_800)
}
