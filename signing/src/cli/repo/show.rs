//! `repo show`: roles, releases, revocations, and what waits for whom. Says what a client
//! would make of it now.

use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;
use viworks_signing::tuf::TufError;
use viworks_signing::tuf::repo::{Overview, RELEASES};

use super::super::{Error, Exit, Output, output};
use super::dir::Dir;
use super::{Fault, carry, lacks};

/// Show roles, releases, revocations and what waits for whom.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 if a client that trusts 1.root.json would take the repository now, 4 if something
has expired, 1 if it would refuse it otherwise.

Examples:
  viworks-sign repo show releases
  viworks-sign repo show releases --output json | jq '.roles[] | {role, expires}'")]
pub(super) struct Show {
    /// The repository's folder
    dir: PathBuf,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Show {
    pub fn run(&self) -> Result<Exit, Error> {
        let dir = Dir::lock(&self.dir)?;
        let repo = dir.open()?;
        let (roles, missing) = (repo.overview(), repo.missing().map_err(Fault::from)?);
        let files = dir.metadata("metadata")?;
        let taken = carry::update(&files, |name| dir.target(name), None, Default::default(), SystemTime::now());
        let (exit, verdict) = match &taken {
            Ok(_) => (Exit::Done, "OK".to_owned()),
            Err(error @ TufError::Expired { .. }) => (Exit::Stale, format!("{}: {error}", error.code())),
            Err(error) => (Exit::Refused, format!("{}: {}", error.code(), output::chain(error))),
        };
        let targets = repo.targets(RELEASES).map(|role| role.targets.clone()).unwrap_or_default();
        match self.output {
            Output::Json => output::json(&json!({
                "result": if exit == Exit::Done { "current" } else { "refused" },
                "code": taken.as_ref().map_or_else(TufError::code, |_| "OK"),
                "roles": roles, "targets": targets, "revocations": repo.revocations(), "missing": missing,
            }))?,
            Output::Text => {
                let mut lines = vec![format!("a client says  {verdict}")];
                lines.extend(roles.iter().map(role));
                for (name, target) in &targets {
                    lines.push(format!("target  {name} ({} bytes, sha256 {})", target.length, target.hashes.sha256));
                }
                let list = repo.revocations();
                lines.extend(list.keys().map(|id| format!("revoked key     {id}")));
                lines.extend(
                    list.digests().map(|d| format!("revoked digest  {} ({:?}): {}", d.sha256, d.action, d.reason)),
                );
                lines.extend(
                    list.floors().map(|f| format!("revoked up to   {} {}.{}", f.plugin, f.epoch, f.max_sequence)),
                );
                lines.extend(missing.iter().map(lacks));
                output::lines(lines)?;
            }
        }
        Ok(exit)
    }
}

fn role(role: &Overview) -> String {
    let version = role.version.map_or("none".to_owned(), |version| version.to_string());
    let expires = role.expires.as_deref().unwrap_or("never published");
    let pending = role.pending.map(|version| format!(", version {version} waits")).unwrap_or_default();
    format!(
        "{:10} version {version}, expires {expires}, {} of {} keys{pending}",
        role.role,
        role.threshold,
        role.keys.len()
    )
}
