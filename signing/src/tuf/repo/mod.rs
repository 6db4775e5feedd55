//! A release repository from its maker's side, in memory: what changes is drafted, signed
//! by whoever is there, and published once every role has its threshold. Refuses to
//! publish what a client would refuse.
//!
//! - [`draft`]: one file while it is written
//! - [`change`]: what can be done to a repository
//! - [`publish`]: drafts into the current version, with a new timestamp
//!
//! Files are the caller's: [`Repository::open`] is given them, [`Repository::take_written`]
//! gives what has to be written.

pub mod change;
pub mod draft;
pub mod publish;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::metadata::{Header, Kind, Root, SPEC_VERSION, Snapshot, Targets, Timestamp};
use super::role::{Role, RoleKeys};
use super::{MAX_ROOT, MAX_SNAPSHOT, MAX_TARGETS, MAX_TIMESTAMP, REVOCATIONS, Revocations, TufError};
use crate::keys::PublicKey;
use crate::signer;
pub use change::{GatewayProgram, Keys, Release};
pub use draft::{Draft, Missing};
pub use publish::Published;

/// The delegated role of the plugins' releases.
pub const RELEASES: &str = "releases";
/// The delegated role of [`REVOCATIONS`].
pub const REVOCATION: &str = "revocation";
/// Every role, the mightiest first.
pub const ROLES: [&str; 6] = ["root", "targets", RELEASES, REVOCATION, "snapshot", "timestamp"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tuf(#[from] TufError),
    #[error(transparent)]
    Signer(#[from] signer::Error),
    #[error("no client would take this ({})", .0.code())]
    Unacceptable(#[source] TufError),
    #[error("{name} is missing")]
    NoFile { name: String },
    #[error("{role} is no role; wanted root, targets, releases, revocation, snapshot or timestamp")]
    NoRole { role: String },
    #[error("key {id} is none of {role}'s")]
    NoKey { role: String, id: String },
    #[error("{name} is there already with other bytes; release it under a new version")]
    Replaced { name: String },
    #[error("{plugin} {version} has sequence {found}, and {known} was released already")]
    Sequence { plugin: String, version: String, known: String, found: String },
    #[error("time {0:?} is out of range")]
    Time(SystemTime),
}

impl Error {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tuf(error) | Self::Unacceptable(error) => error.code(),
            Self::Signer(_) => "E_SIGNER",
            Self::NoFile { .. } => "E_REPO_FILE",
            Self::NoRole { .. } | Self::NoKey { .. } => "E_REPO_ROLE",
            Self::Replaced { .. } => "E_TUF_REPLACED",
            Self::Sequence { .. } => "E_ROLLBACK",
            Self::Time(_) => "E_REPO_TIME",
        }
    }
}

/// For how many days each role's file is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Days {
    pub root: u32,
    pub targets: u32,
    pub releases: u32,
    pub revocation: u32,
    pub snapshot: u32,
    pub timestamp: u32,
}

impl Default for Days {
    fn default() -> Self {
        Self { root: 365, targets: 180, releases: 90, revocation: 30, snapshot: 7, timestamp: 1 }
    }
}

impl Days {
    /// For repositories that are carried to their gateways on a medium.
    #[must_use]
    pub fn air_gap() -> Self {
        Self { snapshot: 30, timestamp: 30, ..Self::default() }
    }

    /// For `role`; a name that is none counts as `timestamp`.
    pub fn set(&mut self, role: &str, days: u32) {
        *match role {
            "root" => &mut self.root,
            "targets" => &mut self.targets,
            RELEASES => &mut self.releases,
            REVOCATION => &mut self.revocation,
            "snapshot" => &mut self.snapshot,
            _ => &mut self.timestamp,
        } = days;
    }

    fn of(&self, role: &str) -> u32 {
        match role {
            "root" => self.root,
            "targets" => self.targets,
            RELEASES => self.releases,
            REVOCATION => self.revocation,
            "snapshot" => self.snapshot,
            _ => self.timestamp,
        }
    }
}

/// What is published of a role and what is drafted.
#[derive(Debug, Clone)]
struct Work<T> {
    published: Option<Draft<T>>,
    pending: Option<Draft<T>>,
}

impl<T> Default for Work<T> {
    fn default() -> Self {
        Self { published: None, pending: None }
    }
}

impl<T> Work<T> {
    fn latest(&self) -> Option<&Draft<T>> {
        self.pending.as_ref().or(self.published.as_ref())
    }
}

/// A repository with its drafts.
#[derive(Debug, Clone)]
pub struct Repository {
    days: Days,
    root: Work<Root>,
    /// `targets`, and the two delegated roles.
    roles: BTreeMap<&'static str, Work<Targets>>,
    snapshot: Option<Draft<Snapshot>>,
    timestamp: Option<Draft<Timestamp>>,
    revocations: Revocations,
    /// Published metadata, by file name.
    metadata: BTreeMap<String, Vec<u8>>,
    written: Written,
}

/// Files that have to be written, in this order: targets, pending, metadata; the timestamp
/// last of all. Then the named drafts go.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// `targets/NAME`
    pub targets: BTreeMap<String, Vec<u8>>,
    /// `pending/NAME`
    pub pending: BTreeMap<String, Vec<u8>>,
    /// `metadata/NAME`, but the timestamp.
    pub metadata: BTreeMap<String, Vec<u8>>,
    pub timestamp: Option<Vec<u8>>,
    /// `pending/NAME`
    pub gone: BTreeSet<String>,
}

impl Repository {
    /// From its files by name: `metadata/`, `pending/`, and the current list of revocations
    /// (`targets/<sha256>.revocations.json`, found with [`Self::revocations_name`]).
    ///
    /// # Errors
    /// When a file is missing or malformed. Signatures are checked when publishing.
    pub fn open(
        metadata: BTreeMap<String, Vec<u8>>,
        pending: &BTreeMap<String, Vec<u8>>,
        days: Days,
        targets: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, Error> {
        let mut repo = Self::empty(days);
        let newest = |files: &BTreeMap<String, Vec<u8>>, role: &str| {
            let version = |name: &String| name.strip_suffix(&format!(".{role}.json"))?.parse::<u64>().ok();
            files.keys().filter_map(|name| Some((version(name)?, name.clone()))).max().map(|(_, name)| name)
        };
        repo.root = work(&metadata, pending, &newest, "root", MAX_ROOT)?;
        for role in ["targets", RELEASES, REVOCATION] {
            repo.roles.insert(role, work(&metadata, pending, &newest, role, MAX_TARGETS)?);
        }
        if let Some(name) = newest(&metadata, "snapshot") {
            repo.snapshot = Some(Draft::read(&name, &metadata[&name], MAX_SNAPSHOT)?);
        }
        if let Some(bytes) = metadata.get("timestamp.json") {
            repo.timestamp = Some(Draft::read("timestamp.json", bytes, MAX_TIMESTAMP)?);
        }
        repo.metadata = metadata;
        if let Some(name) = repo.revocations_name() {
            let bytes = targets(&name).ok_or(Error::NoFile { name })?;
            repo.revocations = Revocations::read(&bytes)?;
        }
        Ok(repo)
    }

    fn empty(days: Days) -> Self {
        Self {
            days,
            root: Work::default(),
            roles: BTreeMap::new(),
            snapshot: None,
            timestamp: None,
            revocations: Revocations::default(),
            metadata: BTreeMap::new(),
            written: Written::default(),
        }
    }

    /// The name in `targets/` of the latest list of revocations, drafted or published.
    #[must_use]
    pub fn revocations_name(&self) -> Option<String> {
        let role = self.roles.get(REVOCATION)?.latest()?;
        Some(format!("{}.{REVOCATIONS}", role.signed.targets.get(REVOCATIONS)?.hashes.sha256))
    }

    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// What has to be written since it was opened or last asked.
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// Published metadata, by file name.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.metadata
    }

    /// The published or drafted content of each role with its file's version and expiry.
    #[must_use]
    pub fn overview(&self) -> Vec<Overview> {
        let mut all = vec![overview("root", self.root.published.as_ref(), self.root.pending.as_ref())];
        for name in ["targets", RELEASES, REVOCATION] {
            let work = self.roles.get(name);
            all.push(overview(name, work.and_then(|w| w.published.as_ref()), work.and_then(|w| w.pending.as_ref())));
        }
        all.push(overview("snapshot", self.snapshot.as_ref(), None));
        all.push(overview("timestamp", self.timestamp.as_ref(), None));
        for entry in &mut all {
            if let Ok(role) = self.role(&entry.role) {
                entry.threshold = role.threshold();
                entry.keys = role.keys().values().map(PublicKey::id).collect();
            }
        }
        all
    }

    /// The targets of `role`, drafted ones too.
    #[must_use]
    pub fn targets(&self, role: &str) -> Option<&Targets> {
        Some(&self.roles.get(role)?.latest()?.signed)
    }

    /// Keys and threshold that the latest content gives a role.
    ///
    /// # Errors
    /// [`Error::NoRole`], or when its keys can't be used.
    pub fn role(&self, name: &str) -> Result<Role, Error> {
        let no_role = || Error::NoRole { role: name.to_owned() };
        if [RELEASES, REVOCATION].contains(&name) {
            let targets = &self.roles.get("targets").and_then(Work::latest).ok_or_else(no_role)?.signed;
            return delegated(targets, name)?.ok_or_else(no_role);
        }
        let root = &self.root.latest().ok_or_else(no_role)?.signed;
        if !root.roles.contains_key(name) {
            return Err(no_role());
        }
        Ok(root.role(name)?)
    }

    fn header(&self, kind: &str, role: &str, version: u64, now: SystemTime) -> Result<Header, Error> {
        let expires = now.checked_add(Duration::from_secs(86_400 * u64::from(self.days.of(role))));
        let expires = expires.ok_or(Error::Time(now))?;
        Ok(Header {
            kind: kind.to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires: humantime::format_rfc3339_seconds(expires).to_string(),
        })
    }
}

/// A role as `show` tells of it.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    pub role: String,
    pub version: Option<u64>,
    pub expires: Option<String>,
    /// The version that waits for signatures.
    pub pending: Option<u64>,
    pub threshold: u32,
    pub keys: Vec<String>,
}

fn overview<T: Kind>(role: &str, published: Option<&Draft<T>>, pending: Option<&Draft<T>>) -> Overview {
    let header = published.map(|draft| draft.signed.header());
    Overview {
        role: role.to_owned(),
        version: header.map(|header| header.version),
        expires: header.map(|header| header.expires.clone()),
        pending: pending.map(|draft| draft.signed.header().version),
        threshold: 0,
        keys: Vec::new(),
    }
}

fn work<T: Kind + Clone>(
    metadata: &BTreeMap<String, Vec<u8>>,
    pending: &BTreeMap<String, Vec<u8>>,
    newest: &impl Fn(&BTreeMap<String, Vec<u8>>, &str) -> Option<String>,
    role: &str,
    max: u64,
) -> Result<Work<T>, TufError> {
    let read = |files: &BTreeMap<String, Vec<u8>>| {
        let name = newest(files, role);
        name.and_then(|name| Some((files.get(&name)?, name)))
            .map(|(bytes, name)| Draft::read(&name, bytes, max))
            .transpose()
    };
    let published: Option<Draft<T>> = read(metadata)?;
    let version = published.as_ref().map_or(0, |draft| draft.signed.header().version);
    // A draft that a published version has overtaken is of no use any more.
    let pending = read(pending)?.filter(|draft: &Draft<T>| draft.signed.header().version > version);
    Ok(Work { published, pending })
}

fn delegated(targets: &Targets, name: &str) -> Result<Option<Role>, TufError> {
    Ok(targets.delegated()?.into_iter().find(|(role, _)| role.name == name).map(|(_, role)| role))
}

fn role_keys(keys: &[PublicKey], threshold: u32) -> RoleKeys {
    RoleKeys { keyids: keys.iter().map(super::role::key_id).collect(), threshold }
}
