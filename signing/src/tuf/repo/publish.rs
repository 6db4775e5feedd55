//! From drafts to the current version: whatever has its threshold is published, in one
//! consistent snapshot with a new timestamp. Refuses what a client that starts at the first
//! root would refuse; then nothing is published.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::metadata::{Hashes, Kind as _, MetaFile, Root, Snapshot, Targets, Timestamp};
use super::super::role::Role;
use super::super::{Client, MAX_ROOT, MAX_SNAPSHOT, MAX_TARGETS, MAX_TIMESTAMP, State, Step, TufError};
use super::change::role_of;
use super::{Draft, Error, Missing, RELEASES, REVOCATION, Repository};
use crate::signer::Signer;

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Published {
    /// Files that are current now.
    pub files: Vec<String>,
    /// What drafts still lack, and what publishing lacks.
    pub missing: Vec<Missing>,
}

impl Repository {
    /// Give every draft the signatures that `keys` can give, as its role is published and as
    /// it is drafted; how many were given.
    ///
    /// # Errors
    /// When a key does not sign.
    pub fn sign(&mut self, keys: &[&dyn Signer]) -> Result<usize, Error> {
        let mut count = 0;
        let old = self.root.published.as_ref().map(|root| root.signed.role("root")).transpose()?;
        if let Some(draft) = &mut self.root.pending {
            let own = draft.signed.role("root")?;
            count += draft.sign(&own, keys)?;
            if let Some(old) = old {
                count += draft.sign(&old, keys)?;
            }
        }
        for name in ["targets", RELEASES, REVOCATION] {
            let role = self.role(name)?;
            if let Some(draft) = self.roles.get_mut(name).and_then(|work| work.pending.as_mut()) {
                count += draft.sign(&role, keys)?;
            }
        }
        self.write_pending()?;
        Ok(count)
    }

    /// What the drafts lack.
    ///
    /// # Errors
    /// When a role's keys can't be used.
    pub fn missing(&self) -> Result<Vec<Missing>, Error> {
        let mut missing = Vec::new();
        if let Some(draft) = &self.root.pending {
            missing.extend(self.root_lacks(draft)?);
        }
        for name in ["targets", RELEASES, REVOCATION] {
            if let Some(draft) = self.roles.get(name).and_then(|work| work.pending.as_ref()) {
                missing.push(draft.missing(&self.role(name)?)?);
            }
        }
        missing.retain(|missing| missing.count > 0);
        Ok(missing)
    }

    /// Publish the drafts that have their thresholds, with a new timestamp, and a new snapshot
    /// where one is due. `keys` sign snapshot and timestamp. Without them, or with a first
    /// version that is incomplete, everything stays drafted and [`Published::missing`] says why.
    ///
    /// # Errors
    /// [`Error::Unacceptable`]: a client would refuse the outcome; nothing was published.
    pub fn publish(&mut self, keys: &[&dyn Signer], now: SystemTime) -> Result<Published, Error> {
        let mut missing = self.missing()?;
        let Some(set) = self.set()? else { return Ok(Published { files: Vec::new(), missing }) };
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let name = format!("{}.root.json", set.root.signed.header.version);
        files.insert(name.clone(), set.root.bytes(&name, MAX_ROOT)?);
        let mut meta = BTreeMap::new();
        for (role, draft) in &set.roles {
            let version = draft.signed.header.version;
            let name = format!("{version}.{role}.json");
            // What is published keeps its bytes, so that it keeps its digest.
            let bytes = match self.metadata.get(&name) {
                Some(bytes) => bytes.clone(),
                None => draft.bytes(&name, MAX_TARGETS)?,
            };
            meta.insert(format!("{role}.json"), meta_file(version, &bytes));
            files.insert(name, bytes);
        }

        let role = set.root.signed.role("snapshot")?;
        let snapshot = self.next_snapshot(&role, meta, keys, now)?;
        let lacks = snapshot.missing(&role)?;
        let name = format!("{}.snapshot.json", snapshot.signed.header.version);
        let bytes = match self.metadata.get(&name) {
            Some(bytes) => bytes.clone(),
            None => snapshot.bytes(&name, MAX_SNAPSHOT)?,
        };
        let file = meta_file(snapshot.signed.header.version, &bytes);
        files.insert(name, bytes);

        let role = set.root.signed.role("timestamp")?;
        let version = self.timestamp.as_ref().map_or(1, |draft| draft.signed.header.version.saturating_add(1));
        let header = self.header("timestamp", "timestamp", version, now)?;
        let meta = BTreeMap::from([("snapshot.json".to_owned(), file)]);
        let mut timestamp = Draft::new(Timestamp { header, meta });
        timestamp.sign(&role, keys)?;
        let open: Vec<Missing> =
            [lacks, timestamp.missing(&role)?].into_iter().filter(|missing| missing.count > 0).collect();
        if !open.is_empty() {
            missing.extend(open);
            return Ok(Published { files: Vec::new(), missing });
        }
        let bytes = timestamp.bytes("timestamp.json", MAX_TIMESTAMP)?;
        files.retain(|name, bytes| self.metadata.get(name) != Some(bytes));
        files.insert("timestamp.json".to_owned(), bytes.clone());
        self.rehearse(&files, now)?;

        files.remove("timestamp.json");
        self.commit(set, snapshot, timestamp);
        let names = files.keys().cloned().chain(["timestamp.json".to_owned()]).collect();
        self.metadata.extend(files.clone());
        self.metadata.insert("timestamp.json".to_owned(), bytes.clone());
        self.written.metadata.extend(files);
        self.written.timestamp = Some(bytes);
        self.write_pending()?;
        Ok(Published { files: names, missing })
    }

    /// Drafts where they are complete, published files else; `None` while a role has neither.
    fn set(&self) -> Result<Option<Set>, Error> {
        let complete = match &self.root.pending {
            Some(draft) if self.root_lacks(draft)?.iter().all(|missing| missing.count == 0) => Some(draft),
            _ => None,
        };
        let Some(root) = complete.or(self.root.published.as_ref()).cloned() else { return Ok(None) };
        let mut roles: BTreeMap<&'static str, Draft<Targets>> = BTreeMap::new();
        for name in ["targets", RELEASES, REVOCATION] {
            let role = match roles.get("targets") {
                Some(targets) => role_of(name, &root.signed, &targets.signed)?,
                None => root.signed.role(name)?,
            };
            let Some(work) = self.roles.get(name) else { return Ok(None) };
            let complete = match &work.pending {
                Some(draft) if draft.missing(&role)?.count == 0 => Some(draft),
                _ => None,
            };
            let Some(draft) = complete.or(work.published.as_ref()) else { return Ok(None) };
            roles.insert(name, draft.clone());
        }
        Ok(Some(Set { root, roles }))
    }

    /// Under the root before it, and under its own keys.
    fn root_lacks(&self, draft: &Draft<Root>) -> Result<Vec<Missing>, Error> {
        let mut lacks = vec![draft.missing(&draft.signed.role("root")?)?];
        if let Some(old) = &self.root.published {
            let mut old = draft.missing(&old.signed.role("root")?)?;
            old.role = format!("{} (its keys before)", old.role);
            lacks.push(old);
        }
        Ok(lacks)
    }

    /// The published one while it says the same, is signed by today's keys and not half gone.
    fn next_snapshot(
        &self,
        role: &Role,
        meta: BTreeMap<String, MetaFile>,
        keys: &[&dyn Signer],
        now: SystemTime,
    ) -> Result<Draft<Snapshot>, Error> {
        if let Some(old) = &self.snapshot {
            let half = self.header("snapshot", "snapshot", 1, now)?;
            let left = |text: &str| {
                let at = humantime::parse_rfc3339(text).ok()?;
                at.duration_since(now).ok()
            };
            let fresh = match (left(&old.signed.header().expires), left(&half.expires)) {
                (Some(left), Some(whole)) => left * 2 > whole,
                _ => false,
            };
            let able = Draft::new(old.signed.clone()).sign(role, keys)? >= role.threshold() as usize;
            if old.signed.meta == meta && old.missing(role)?.count == 0 && (fresh || !able) {
                return Ok(old.clone());
            }
        }
        let version = self.snapshot.as_ref().map_or(1, |draft| draft.signed.header.version.saturating_add(1));
        let header = self.header("snapshot", "snapshot", version, now)?;
        let mut draft = Draft::new(Snapshot { header, meta });
        draft.sign(role, keys)?;
        Ok(draft)
    }

    /// A client that knows the first root takes it, and one that knows the last too.
    fn rehearse(&self, files: &BTreeMap<String, Vec<u8>>, now: SystemTime) -> Result<(), Error> {
        let find = |name: &str| files.get(name).or_else(|| self.metadata.get(name)).cloned();
        let revocations = self.revocations.write()?;
        let first = find("1.root.json").ok_or(Error::NoFile { name: "1.root.json".to_owned() })?;
        let run = || -> Result<(), TufError> {
            let mut client = Client::new(&first, State::default(), now)?;
            while let Step::Fetch { name, .. } = client.next() {
                let revoked = name.ends_with(super::REVOCATIONS).then(|| revocations.clone());
                client.supply(revoked.or_else(|| find(&name)).as_deref())?;
            }
            Ok(())
        };
        run().map_err(Error::Unacceptable)
    }

    fn commit(&mut self, set: Set, snapshot: Draft<Snapshot>, timestamp: Draft<Timestamp>) {
        let version = set.root.signed.header.version;
        self.root.pending = self.root.pending.take().filter(|draft| draft.signed.header.version > version);
        self.root.published = Some(set.root);
        self.written.gone.insert(format!("{version}.root.json"));
        for (name, draft) in set.roles {
            let version = draft.signed.header.version;
            let Some(work) = self.roles.get_mut(name) else { continue };
            work.pending = work.pending.take().filter(|draft| draft.signed.header.version > version);
            work.published = Some(draft);
            self.written.gone.insert(format!("{version}.{name}.json"));
        }
        self.snapshot = Some(snapshot);
        self.timestamp = Some(timestamp);
    }

    fn write_pending(&mut self) -> Result<(), Error> {
        let pending = &mut self.written.pending;
        pending.clear();
        if let Some(draft) = &self.root.pending {
            let name = format!("{}.root.json", draft.signed.header.version);
            pending.insert(name.clone(), draft.bytes(&name, MAX_ROOT)?);
        }
        for (role, work) in &self.roles {
            if let Some(draft) = &work.pending {
                let name = format!("{}.{role}.json", draft.signed.header.version);
                pending.insert(name.clone(), draft.bytes(&name, MAX_TARGETS)?);
            }
        }
        Ok(())
    }
}

/// What is to be current.
struct Set {
    root: Draft<Root>,
    roles: BTreeMap<&'static str, Draft<Targets>>,
}

fn meta_file(version: u64, bytes: &[u8]) -> MetaFile {
    let hashes = Some(Hashes { sha256: hex::encode(Sha256::digest(bytes)) });
    MetaFile { version, length: Some(bytes.len() as u64), hashes }
}
