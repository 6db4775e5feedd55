//! `viworks-sign repo`: a release repository in a folder. A file for each group of commands:
//!
//! - [`init`], [`add`], [`program`], [`change`]: what drafts new metadata
//! - [`sign`]: signatures of one person after another, and the timestamp
//! - [`show`], [`check`], [`carry`]: what is there, what a client makes of it, and all of it
//!   as one file
//! - [`dir`]: the folder; [`roles`]: `ROLE=VALUE` arguments
//!
//! Every command signs with the keys that it is given, publishes what has its threshold, and
//! says who is still missing for the rest. Refuses to publish what a client would refuse.

mod add;
mod carry;
mod change;
mod check;
mod dir;
mod init;
mod program;
mod roles;
mod show;
mod sign;

use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::signer::Signer;
use viworks_signing::tuf::TufError;
use viworks_signing::tuf::repo::{Error as RepoError, Missing, Repository};

use super::keyref::Password;
use super::{Error, Exit, Output, output};
use dir::Dir;

/// Make and keep the release repository: which releases are current, and which were revoked.
#[derive(Debug, Args)]
#[command(after_help = "\
Roles, the mightiest first: root, targets, releases, revocation, snapshot, timestamp. The first
four are kept offline; a draft that lacks signatures waits in DIR/pending until 'repo sign' was
run by enough people. Metadata is in DIR/metadata, what is released in DIR/targets.

Examples:
  viworks-sign repo init releases --role root=keys/root-{1,2,3}.pub.pem …   # see repo init --help
  viworks-sign repo add releases dist/accounts.wasm --key file:keys/release.key.pem
  viworks-sign repo sign releases --key file:/media/mine/security.key.pem
  viworks-sign repo timestamp releases --key env:SNAPSHOT_KEY --key env:TIMESTAMP_KEY")]
pub(crate) struct Repo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Add(add::Add),
    AddProgram(program::AddProgram),
    Revoke(change::Revoke),
    RotateRoot(change::RotateRoot),
    Refresh(change::Refresh),
    Sign(sign::Sign),
    Timestamp(sign::Timestamp),
    Show(show::Show),
    Check(check::Check),
    Export(carry::Export),
    Import(carry::Import),
}

/// What can go wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Tuf(#[from] TufError),
    #[error("{path} is in use by another command")]
    Busy { path: PathBuf },
    #[error("{path} has a repository already")]
    Exists { path: PathBuf },
    #[error("{path} is no repository; 'viworks-sign repo init' makes one")]
    None { path: PathBuf },
    #[error("{text:?}: wanted ROLE=VALUE, ROLE being root, targets, releases, revocation, snapshot or timestamp")]
    Role { text: String },
    #[error("{text:?} is no number from {least} to 3650")]
    Number { text: String, least: u32 },
    #[error("{text:?} is no SHA-256 in lowercase hex")]
    Digest { text: String },
    #[error("{text:?}: wanted PLUGIN=EPOCH.SEQUENCE")]
    Floor { text: String },
    #[error("nothing to revoke; give --revoke-key, --digest or --floor")]
    Nothing,
    #[error("role {role} needs keys: --role {role}=FILE")]
    NoKeys { role: &'static str },
    #[error("settings {path}")]
    Settings { path: PathBuf, source: toml::de::Error },
    #[error("the settings can't be written")]
    WriteSettings(#[source] toml::ser::Error),
    #[error("{path} is no export of a repository: {what}")]
    Container { path: PathBuf, what: &'static str },
}

impl Fault {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Repo(RepoError::Signer(_)) => Exit::Key,
            Self::Repo(RepoError::Unacceptable(TufError::Expired { .. })) | Self::Tuf(TufError::Expired { .. }) => {
                Exit::Stale
            }
            Self::Repo(RepoError::NoFile { .. }) | Self::None { .. } | Self::Busy { .. } => Exit::Io,
            Self::Repo(RepoError::NoRole { .. } | RepoError::NoKey { .. }) | Self::Exists { .. } => Exit::Usage,
            Self::Role { .. } | Self::Number { .. } | Self::Digest { .. } | Self::Floor { .. } => Exit::Usage,
            Self::Nothing | Self::NoKeys { .. } | Self::Settings { .. } => Exit::Usage,
            _ => Exit::Refused,
        }
    }
}

/// The keys that are at hand.
#[derive(Debug, Args)]
struct Keys {
    /// Private key to sign with: file:PATH, a path, env:VAR or pkcs11:…; may be given several times
    #[arg(long = "key", value_name = "REF")]
    keys: Vec<String>,
    #[command(flatten)]
    password: Password,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Keys {
    fn signers(&self) -> Result<Vec<Box<dyn Signer>>, Error> {
        if self.keys.is_empty() { Ok(Vec::new()) } else { self.password.signers(&self.keys) }
    }
}

impl Repo {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        match &self.command {
            Command::Init(command) => command.run(),
            Command::Add(command) => command.run(),
            Command::AddProgram(command) => command.run(),
            Command::Revoke(command) => command.run(),
            Command::RotateRoot(command) => command.run(),
            Command::Refresh(command) => command.run(),
            Command::Sign(command) => command.run(),
            Command::Timestamp(command) => command.run(),
            Command::Show(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Import(command) => command.run(),
        }
    }
}

/// Change what is in `path`, sign with `keys`, publish what is complete.
fn change(
    path: &Path,
    keys: &Keys,
    what: &str,
    edit: impl FnOnce(&mut Repository, SystemTime) -> Result<(), Error>,
) -> Result<Exit, Error> {
    let signers = keys.signers()?;
    let dir = Dir::lock(path)?;
    let mut repo = dir.open()?;
    edit(&mut repo, SystemTime::now())?;
    finish(&dir, &mut repo, &signers, keys.output, what)
}

/// Sign, publish, write, and tell.
fn finish(
    dir: &Dir,
    repo: &mut Repository,
    signers: &[Box<dyn Signer>],
    output: Output,
    what: &str,
) -> Result<Exit, Error> {
    let signers: Vec<&dyn Signer> = signers.iter().map(AsRef::as_ref).collect();
    let signed = repo.sign(&signers).map_err(Fault::from)?;
    // A timestamp alone is 'repo timestamp's: whoever signs a draft need not be online.
    let published = repo.publish(&signers, SystemTime::now());
    // Drafts and their signatures are kept whatever became of publishing.
    dir.write(repo.take_written())?;
    let published = published.map_err(Fault::from)?;
    match output {
        Output::Json => output::json(&json!({
            "result": if published.files.is_empty() { "pending" } else { "published" },
            "code": "OK",
            "signatures": signed,
            "published": published.files,
            "missing": published.missing,
        }))?,
        Output::Text => {
            let mut lines = vec![format!("{what}; {signed} signatures given")];
            if !published.files.is_empty() {
                lines.push(format!("published  {}", published.files.join(", ")));
            }
            lines.extend(published.missing.iter().map(lacks));
            output::lines(lines)?;
        }
    }
    Ok(Exit::Done)
}

/// One line of what is missing.
fn lacks(missing: &Missing) -> String {
    let keys = missing.keys.join(", ");
    format!("waiting    {} needs {} more of: {keys}", missing.role, missing.count)
}
