//! The five kinds of signed metadata, read strictly. Refuses what serde_json would let pass,
//! another type than wanted, keys in two roles, and delegations beyond one terminating level.
//! Fields that TUF does not know are covered by the signature and otherwise ignored.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::names::{is_sha256, is_target};
use super::role::{Key, MAX_SIGNATURES, Role, RoleKeys, Signature, disjoint};
use super::{TufError, canonical};
use crate::names::is_plugin_id;
use crate::strict_json::{self, Floats};

pub const SPEC_VERSION: &str = "1.0.31";
/// Every reader holds numbers up to here exactly.
const MAX_VERSION: u64 = (1 << 53) - 1;
const MAX_DELEGATIONS: usize = 8;
const MAX_PATHS: usize = 16;

/// What all kinds begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    #[serde(rename = "_type")]
    pub kind: String,
    pub spec_version: String,
    pub version: u64,
    /// `YYYY-MM-DDTHH:MM:SSZ`
    pub expires: String,
}

/// The four roles that everything hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    #[serde(flatten)]
    pub header: Header,
    pub consistent_snapshot: bool,
    pub keys: BTreeMap<String, Key>,
    pub roles: BTreeMap<String, RoleKeys>,
}

/// Version of a file, and what its bytes are if that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Lowercase hex.
    pub sha256: String,
}

/// Which snapshot is current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(flatten)]
    pub header: Header,
    pub meta: BTreeMap<String, MetaFile>,
}

/// Which version of every other file belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(flatten)]
    pub header: Header,
    pub meta: BTreeMap<String, MetaFile>,
}

/// Targets, and who speaks for other targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    #[serde(flatten)]
    pub header: Header,
    pub targets: BTreeMap<String, Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub length: u64,
    pub hashes: Hashes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    pub keys: BTreeMap<String, Key>,
    pub roles: Vec<Delegation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    pub name: String,
    pub terminating: bool,
    pub paths: Vec<String>,
    #[serde(flatten)]
    pub keys: RoleKeys,
}

/// A kind of metadata.
pub trait Kind: DeserializeOwned + Serialize {
    /// `_type`
    const TYPE: &'static str;
    fn header(&self) -> &Header;
    /// What the types alone do not say.
    ///
    /// # Errors
    /// The first rule that is broken.
    fn check(&self) -> Result<(), TufError>;
}

/// Parsed metadata with the bytes under its signatures, which nobody verified yet.
#[derive(Debug, Clone)]
pub struct Unverified<T> {
    body: T,
    message: Vec<u8>,
    signatures: Vec<Signature>,
    expires: SystemTime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    signatures: Vec<Signature>,
    signed: Value,
}

impl<T: Kind> Unverified<T> {
    /// Read `bytes`, called `name` in errors, of at most `max` bytes.
    ///
    /// # Errors
    /// When they are not well-formed metadata of this kind.
    pub fn read(name: &str, bytes: &[u8], max: u64) -> Result<Self, TufError> {
        let cap = usize::try_from(max).unwrap_or(usize::MAX);
        if bytes.len() > cap {
            return Err(TufError::Size { name: name.to_owned(), max });
        }
        let json = |source| TufError::Json { name: name.to_owned(), source };
        let Envelope { signatures, signed } = strict_json::from_slice(bytes, cap, Floats::Refused).map_err(json)?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(TufError::Signatures { role: name.to_owned(), count: signatures.len() });
        }
        let twice = |(i, s): (usize, &Signature)| signatures[..i].iter().any(|other| other.keyid == s.keyid);
        if signatures.iter().enumerate().any(twice) {
            return Err(TufError::Format { what: format!("{name}: a key id signs twice") });
        }
        let message = canonical::encode(&signed)?;
        let found = signed.get("_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if found != T::TYPE {
            return Err(TufError::Type { name: name.to_owned(), found, wanted: T::TYPE });
        }
        let body: T = serde_json::from_value(signed).map_err(|error| json(strict_json::Error::Shape(error)))?;
        let expires = check_header(name, body.header())?;
        body.check()?;
        Ok(Self { body, message, signatures, expires })
    }

    /// The metadata, if enough keys of `role` signed it.
    ///
    /// # Errors
    /// [`TufError::Threshold`].
    pub fn verify(self, role: &Role) -> Result<Signed<T>, TufError> {
        self.verified_by(role)?;
        Ok(Signed { body: self.body, expires: self.expires })
    }

    pub(super) fn verified_by(&self, role: &Role) -> Result<(), TufError> {
        role.verify(&self.message, &self.signatures)
    }

    /// What it says, before anybody vouches for it.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The bytes under the signatures.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }
}

/// Metadata that enough keys of its role signed.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    body: T,
    expires: SystemTime,
}

impl<T: Kind> Signed<T> {
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    #[must_use]
    pub fn version(&self) -> u64 {
        self.body.header().version
    }

    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Still valid at `now`.
    ///
    /// # Errors
    /// [`TufError::Expired`].
    pub fn fresh(&self, role: &str, now: SystemTime) -> Result<(), TufError> {
        if now < self.expires { Ok(()) } else { Err(TufError::Expired { role: role.to_owned(), at: self.expires }) }
    }
}

fn check_header(name: &str, header: &Header) -> Result<SystemTime, TufError> {
    let format = |what: String| TufError::Format { what: format!("{name}: {what}") };
    if !header.spec_version.starts_with("1.") {
        return Err(format(format!("spec_version {:?}, wanted 1.0.x", header.spec_version)));
    }
    check_version(name, header.version)?;
    let time = (header.expires.len() == 20).then(|| humantime::parse_rfc3339(&header.expires).ok()).flatten();
    time.ok_or_else(|| format(format!("expires {:?}, wanted YYYY-MM-DDTHH:MM:SSZ", header.expires)))
}

fn check_version(name: &str, version: u64) -> Result<(), TufError> {
    if (1..=MAX_VERSION).contains(&version) {
        return Ok(());
    }
    Err(TufError::Format { what: format!("{name}: {version} is no version") })
}

fn check_meta(meta: &BTreeMap<String, MetaFile>) -> Result<(), TufError> {
    for (name, file) in meta {
        if !name.strip_suffix(".json").is_some_and(is_plugin_id) {
            return Err(TufError::Name { name: name.clone() });
        }
        check_version(name, file.version)?;
        file.hashes.as_ref().map_or(Ok(()), |hashes| hashes.check(name))?;
    }
    Ok(())
}

impl Hashes {
    fn check(&self, name: &str) -> Result<(), TufError> {
        if is_sha256(&self.sha256) {
            return Ok(());
        }
        Err(TufError::Format { what: format!("{name}: sha256 is not lowercase hex") })
    }
}

impl Root {
    /// The role `name`, one of `root`, `targets`, `snapshot` and `timestamp`.
    ///
    /// # Errors
    /// When it is not there or its keys can't be used.
    pub fn role(&self, name: &str) -> Result<Role, TufError> {
        let role = self.roles.get(name);
        let role = role.ok_or_else(|| TufError::Format { what: format!("root says nothing of role {name}") })?;
        Role::new(name, role, &self.keys)
    }

    /// All four.
    ///
    /// # Errors
    /// As [`Self::role`].
    pub fn all_roles(&self) -> Result<[Role; 4], TufError> {
        Ok([self.role("root")?, self.role("targets")?, self.role("snapshot")?, self.role("timestamp")?])
    }
}

impl Targets {
    /// The delegated roles, in order.
    ///
    /// # Errors
    /// When keys can't be used.
    pub fn delegated(&self) -> Result<Vec<(&Delegation, Role)>, TufError> {
        let Some(delegations) = &self.delegations else { return Ok(Vec::new()) };
        let mut delegated = Vec::with_capacity(delegations.roles.len());
        for role in &delegations.roles {
            delegated.push((role, Role::new(&role.name, &role.keys, &delegations.keys)?));
        }
        Ok(delegated)
    }
}

impl Kind for Root {
    const TYPE: &'static str = "root";

    fn header(&self) -> &Header {
        &self.header
    }

    fn check(&self) -> Result<(), TufError> {
        if !self.consistent_snapshot {
            return Err(TufError::Format { what: "root: only consistent snapshots are supported".to_owned() });
        }
        if self.roles.len() != 4 {
            return Err(TufError::Format { what: "root: other roles than the four".to_owned() });
        }
        disjoint(&self.all_roles()?)
    }
}

impl Kind for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn header(&self) -> &Header {
        &self.header
    }

    fn check(&self) -> Result<(), TufError> {
        if self.meta.len() != 1 || !self.meta.contains_key("snapshot.json") {
            return Err(TufError::Format { what: "timestamp: wanted the snapshot and nothing else".to_owned() });
        }
        check_meta(&self.meta)
    }
}

impl Timestamp {
    /// The snapshot's version and bytes.
    ///
    /// # Errors
    /// [`TufError::Missing`], which reading has ruled out.
    pub fn snapshot(&self) -> Result<&MetaFile, TufError> {
        self.meta.get("snapshot.json").ok_or_else(|| TufError::Missing { name: "snapshot.json".to_owned() })
    }
}

impl Kind for Snapshot {
    const TYPE: &'static str = "snapshot";

    fn header(&self) -> &Header {
        &self.header
    }

    fn check(&self) -> Result<(), TufError> {
        check_meta(&self.meta)
    }
}

impl Kind for Targets {
    const TYPE: &'static str = "targets";

    fn header(&self) -> &Header {
        &self.header
    }

    fn check(&self) -> Result<(), TufError> {
        for (name, target) in &self.targets {
            if !is_target(name) {
                return Err(TufError::Name { name: name.clone() });
            }
            target.hashes.check(name)?;
        }
        let delegated = self.delegated()?;
        if delegated.len() > MAX_DELEGATIONS {
            return Err(TufError::Format {
                what: format!("{} delegations, at most {MAX_DELEGATIONS}", delegated.len()),
            });
        }
        for (i, (role, _)) in delegated.iter().enumerate() {
            let refuse = |what| Err(TufError::Delegation { role: role.name.clone(), what });
            let top = ["root", "targets", "snapshot", "timestamp"].contains(&role.name.as_str());
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".*-".contains(&b);
            if top || !is_plugin_id(&role.name) {
                return refuse("is not a name for a delegated role");
            }
            if delegated[..i].iter().any(|(other, _)| other.name == role.name) {
                return refuse("is there twice");
            }
            if !role.terminating {
                return refuse("is not terminating");
            }
            if role.paths.is_empty() || role.paths.len() > MAX_PATHS {
                return refuse("has no paths or too many");
            }
            if role.paths.iter().any(|path| path.len() > 64 || !path.bytes().all(plain)) {
                return refuse("has a path of other characters than a-z, 0-9, '.', '-' and '*'");
            }
        }
        disjoint(delegated.iter().map(|(_, role)| role))
    }
}
