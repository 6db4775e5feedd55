//! The client workflow of TUF 1.0 (§5), without I/O: one file after another, each bounded
//! before it is asked for and verified before anything follows from it. Refuses a skipped
//! root, what goes back, what does not belong together, and what has expired.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::metadata::{MetaFile, Root, Signed, Snapshot, Targets, Timestamp, Unverified};
use super::names::REVOCATIONS;
use super::role::{Role, disjoint};
use super::state::{Seen, State};
use super::trusted::{self, Trusted};
use super::{
    MAX_REVOCATIONS, MAX_ROOT, MAX_ROTATIONS, MAX_SNAPSHOT, MAX_TARGETS, MAX_TIMESTAMP, Revocations, TufError,
};

/// What a client needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The file `name` (its folder: [`super::place`]), of which no more than `max` bytes are
    /// worth sending.
    Fetch { name: String, max: u64 },
    /// [`Client::trusted`] has the answer.
    Done,
}

/// One update. After an error it is over; what was verified until then is in
/// [`Client::state`] and worth keeping.
#[derive(Debug)]
pub struct Client {
    state: State,
    now: SystemTime,
    /// Only what is stored counts, and its expiry is left to the caller.
    offline: bool,
    stage: Stage,
    root: Signed<Root>,
    rotations: u64,
    timestamp: Option<Signed<Timestamp>>,
    snapshot: Option<Signed<Snapshot>>,
    roles: BTreeMap<String, Signed<Targets>>,
    files: BTreeMap<String, String>,
    trusted: Option<Trusted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Root,
    Timestamp,
    Snapshot,
    Role(String),
    Revocations,
    Done,
    Failed,
}

impl Client {
    /// Begin an update. `trusted_root`: the `root.json` that the host's owner gave; newer
    /// roots of `state` are verified from it on. `now` is raised to the state's floor; see
    /// [`State::time`].
    ///
    /// # Errors
    /// When `trusted_root` is no root that its own keys signed.
    pub fn new(trusted_root: &[u8], state: State, now: SystemTime) -> Result<Self, TufError> {
        let first = Unverified::<Root>::read("trusted root", trusted_root, MAX_ROOT)?;
        let role = first.body().role("root")?;
        let mut client = Self {
            now: now.max(state.floor()),
            state,
            offline: false,
            stage: Stage::Root,
            root: first.verify(&role)?,
            rotations: 0,
            timestamp: None,
            snapshot: None,
            roles: BTreeMap::new(),
            files: BTreeMap::new(),
            trusted: None,
        };
        // Roots that don't join are of another chain: the owner gave a new anchor. That the
        // root goes back is found once it is known which one is the last.
        for text in std::mem::take(&mut client.state.roots) {
            let newer = Unverified::<Root>::read("stored root", text.as_bytes(), MAX_ROOT)?;
            if newer.body().header.version > client.root.version() && client.take_root(newer, text).is_err() {
                break;
            }
        }
        Ok(client)
    }

    pub(super) fn offline(trusted_root: &[u8], state: State) -> Result<Trusted, TufError> {
        let mut client = Self::new(trusted_root, state, UNIX_EPOCH)?;
        client.offline = true;
        client.end_of_roots()?;
        let text = client.state.timestamp.clone().ok_or_else(|| missing("timestamp.json"))?;
        client.take_timestamp(text.as_bytes())?;
        client.reuse()?;
        client.trusted.ok_or_else(|| missing("a part of the stored metadata"))
    }

    /// What to fetch now. The same until it is supplied.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "it asks again instead of ending, so it is no iterator")]
    pub fn next(&self) -> Step {
        let (name, max) = match &self.stage {
            Stage::Root => (format!("{}.root.json", self.root.version() + 1), MAX_ROOT),
            Stage::Timestamp => ("timestamp.json".to_owned(), MAX_TIMESTAMP),
            Stage::Snapshot => match self.wanted("snapshot") {
                Ok(file) => (format!("{}.snapshot.json", file.version), file.length.unwrap_or(MAX_SNAPSHOT)),
                Err(_) => return Step::Done,
            },
            Stage::Role(role) => match self.wanted(role) {
                Ok(file) => (format!("{}.{role}.json", file.version), file.length.unwrap_or(MAX_TARGETS)),
                Err(_) => return Step::Done,
            },
            Stage::Revocations => match self.revocations_file() {
                Some((sha256, length)) => (format!("{sha256}.{REVOCATIONS}"), length),
                None => return Step::Done,
            },
            Stage::Done | Stage::Failed => return Step::Done,
        };
        Step::Fetch { name, max }
    }

    /// Give the file that [`Self::next`] named; `None`: the repository has no such file.
    ///
    /// # Errors
    /// The first check that refuses, which ends this update.
    pub fn supply(&mut self, bytes: Option<&[u8]>) -> Result<(), TufError> {
        let name = match self.next() {
            Step::Fetch { name, .. } => name,
            Step::Done => return Err(TufError::Order),
        };
        let taken = match (bytes, self.stage.clone()) {
            (None, Stage::Root) => self.end_of_roots(),
            (None, _) => Err(TufError::Missing { name }),
            (Some(bytes), Stage::Root) => self.next_root(&name, bytes),
            (Some(bytes), Stage::Timestamp) => self.take_timestamp(bytes),
            (Some(bytes), Stage::Snapshot) => self.take_snapshot(bytes),
            (Some(bytes), Stage::Role(role)) => self.take_role(&role, bytes),
            (Some(bytes), Stage::Revocations) => self.take_revocations(bytes),
            (Some(_), Stage::Done | Stage::Failed) => Err(TufError::Order),
        };
        let done = taken.and_then(|()| self.reuse());
        if done.is_err() {
            self.stage = Stage::Failed;
        }
        done
    }

    /// The answer, once [`Self::next`] says [`Step::Done`] and nothing was refused.
    #[must_use]
    pub fn trusted(&self) -> Option<&Trusted> {
        self.trusted.as_ref()
    }

    /// What to keep, after success as after an error.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    fn next_root(&mut self, name: &str, bytes: &[u8]) -> Result<(), TufError> {
        if self.rotations == MAX_ROTATIONS {
            return Err(TufError::Rotations);
        }
        self.rotations += 1;
        self.take_root(Unverified::read(name, bytes, MAX_ROOT)?, text(name, bytes)?)
    }

    /// The next root is signed by enough keys of this one, and of its own.
    fn take_root(&mut self, newer: Unverified<Root>, text: String) -> Result<(), TufError> {
        let found = newer.body().header.version;
        let wanted = self.root.version() + 1;
        if found != wanted {
            return Err(TufError::RootVersion { wanted, found });
        }
        let chain = |by| move |source| TufError::RootChain { version: found, by, source: Box::new(source) };
        newer.verified_by(&self.root.body().role("root")?).map_err(chain("the root before it"))?;
        let own = newer.body().role("root")?;
        self.root = newer.verify(&own).map_err(chain("its own keys"))?;
        self.state.roots.push(text);
        Ok(())
    }

    /// No newer root is there: this is the one to go by.
    fn end_of_roots(&mut self) -> Result<(), TufError> {
        let version = self.root.version();
        let known = &mut self.state.known;
        if version < known.root {
            return Err(TufError::Rollback { role: "root".to_owned(), known: known.root, found: version });
        }
        known.root = version;
        let [_, _, snapshot, timestamp] = self.root.body().all_roles()?;
        let lost = known.timestamp.as_ref().is_some_and(|(seen, _)| seen.lost_a_key(&timestamp))
            || known.snapshot.as_ref().is_some_and(|(seen, _)| seen.lost_a_key(&snapshot));
        if lost {
            (known.timestamp, known.snapshot, self.state.timestamp) = (None, None, None);
        }
        if !self.offline {
            self.root.fresh("root", self.now)?;
        }
        self.stage = Stage::Timestamp;
        Ok(())
    }

    fn take_timestamp(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        let role = self.root.body().role("timestamp")?;
        let read = |bytes: &[u8]| Unverified::<Timestamp>::read("timestamp.json", bytes, MAX_TIMESTAMP)?.verify(&role);
        let mut new = read(bytes)?;
        let mut text = text("timestamp.json", bytes)?;
        let rollback = |known, found| TufError::Rollback { role: "timestamp".to_owned(), known, found };
        if let Some((seen, snapshot)) = &self.state.known.timestamp {
            if new.version() < seen.version {
                return Err(rollback(seen.version, new.version()));
            }
            // Of two with one version the first counts.
            let stored = self.state.timestamp.as_ref().filter(|_| new.version() == seen.version);
            if let Some((stored, known)) = stored.and_then(|known| Some((read(known.as_bytes()).ok()?, known))) {
                (new, text) = (stored, known.clone());
            }
            let found = new.body().snapshot()?.version;
            if found < *snapshot {
                return Err(TufError::Rollback { role: "snapshot".to_owned(), known: *snapshot, found });
            }
        }
        self.check_fresh("timestamp", &new)?;
        self.state.known.timestamp = Some((Seen::of(new.version(), &role), new.body().snapshot()?.version));
        self.state.timestamp = Some(text);
        self.timestamp = Some(new);
        self.stage = Stage::Snapshot;
        Ok(())
    }

    fn take_snapshot(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        let role = self.root.body().role("snapshot")?;
        let wanted = self.wanted("snapshot")?.clone();
        check_file("snapshot.json", "the timestamp", bytes, &wanted)?;
        let new = Unverified::<Snapshot>::read("snapshot.json", bytes, MAX_SNAPSHOT)?.verify(&role)?;
        check_version("snapshot.json", "the timestamp", new.version(), &wanted)?;
        let versions: BTreeMap<String, u64> =
            new.body().meta.iter().map(|(name, file)| (name.clone(), file.version)).collect();
        if let Some((_, known)) = &self.state.known.snapshot {
            for (name, known) in known {
                let role = name.strip_suffix(".json").unwrap_or(name).to_owned();
                match versions.get(name) {
                    None => return Err(TufError::Dropped { role }),
                    Some(found) if found < known => {
                        return Err(TufError::Rollback { role, known: *known, found: *found });
                    }
                    Some(_) => {}
                }
            }
        }
        self.check_fresh("snapshot", &new)?;
        self.state.known.snapshot = Some((Seen::of(new.version(), &role), versions));
        self.files.insert("snapshot".to_owned(), text("snapshot.json", bytes)?);
        self.snapshot = Some(new);
        self.stage = Stage::Role("targets".to_owned());
        Ok(())
    }

    fn take_role(&mut self, name: &str, bytes: &[u8]) -> Result<(), TufError> {
        let file = format!("{name}.json");
        let role = self.role(name)?;
        let wanted = self.wanted(name)?.clone();
        check_file(&file, "the snapshot", bytes, &wanted)?;
        let new = Unverified::<Targets>::read(&file, bytes, MAX_TARGETS)?.verify(&role)?;
        check_version(&file, "the snapshot", new.version(), &wanted)?;
        let delegated = new.body().delegated()?;
        let (top, deeper) = (name == "targets", !delegated.is_empty());
        if top {
            let all = self.root.body().all_roles()?;
            disjoint(all.iter().chain(delegated.iter().map(|(_, role)| role)))?;
        } else if deeper {
            return Err(TufError::Delegation { role: name.to_owned(), what: "delegates further" });
        }
        // What a key that is gone may have signed is no measure for its successors.
        let seen = self.state.known.roles.get(name).filter(|seen| !seen.lost_a_key(&role));
        if let Some(seen) = seen {
            if new.version() < seen.version {
                let (known, found) = (seen.version, new.version());
                return Err(TufError::Rollback { role: name.to_owned(), known, found });
            }
            self.check_replaced(name, new.body())?;
        }
        self.check_fresh(name, &new)?;
        self.state.known.roles.insert(name.to_owned(), Seen::of(new.version(), &role));
        self.files.insert(name.to_owned(), text(&file, bytes)?);
        self.roles.insert(name.to_owned(), new);
        self.stage = self.after_role();
        if self.stage == Stage::Revocations && self.revocations_file().is_none() {
            if !self.state.revocations.is_empty() {
                return Err(TufError::Revocations { what: "is gone" });
            }
            return self.finish(Revocations::default());
        }
        Ok(())
    }

    /// The first delegated role that is not there yet.
    fn after_role(&self) -> Stage {
        let top = self.roles.get("targets").and_then(|targets| targets.body().delegations.as_ref());
        let open = top.and_then(|d| d.roles.iter().find(|role| !self.roles.contains_key(&role.name)));
        open.map_or(Stage::Revocations, |role| Stage::Role(role.name.clone()))
    }

    /// A component's name stands for the same bytes for ever.
    fn check_replaced(&self, role: &str, new: &Targets) -> Result<(), TufError> {
        let Some(stored) = self.state.files.get(role) else { return Ok(()) };
        let Ok(stored) = Unverified::<Targets>::read(role, stored.as_bytes(), MAX_TARGETS) else { return Ok(()) };
        let old = &stored.body().targets;
        let replaced = new.targets.iter().find(|(name, target)| {
            name.ends_with(".wasm") && old.get(*name).is_some_and(|old| old.hashes.sha256 != target.hashes.sha256)
        });
        replaced.map_or(Ok(()), |(name, _)| Err(TufError::Replaced { name: name.clone() }))
    }

    fn take_revocations(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        let (sha256, length) = self.revocations_file().ok_or(TufError::Order)?;
        let wanted = MetaFile { version: 1, length: Some(length), hashes: Some(super::metadata::Hashes { sha256 }) };
        check_file(REVOCATIONS, "its role", bytes, &wanted)?;
        let revocations = Revocations::read(bytes)?;
        if !revocations.covers(&self.state.revocations) {
            return Err(TufError::Revocations { what: "says less than before" });
        }
        self.files.insert(REVOCATIONS.to_owned(), text(REVOCATIONS, bytes)?);
        self.finish(revocations)
    }

    fn finish(&mut self, revocations: Revocations) -> Result<(), TufError> {
        let (Some(timestamp), Some(snapshot), Some(top)) = (&self.timestamp, &self.snapshot, self.roles.get("targets"))
        else {
            return Err(TufError::Order);
        };
        let roles = self.roles.iter().map(|(name, role)| (name.clone(), role.expires()));
        let expires =
            [("root", self.root.expires()), ("timestamp", timestamp.expires()), ("snapshot", snapshot.expires())]
                .map(|(name, at)| (name.to_owned(), at));
        let first = expires.into_iter().chain(roles).min_by_key(|(_, at)| *at);
        self.state.revocations.merge(&revocations);
        self.trusted = Some(Trusted {
            versions: trusted::versions(self.root.version(), timestamp, snapshot, &self.roles),
            targets: trusted::all(top.body(), &self.roles),
            revocations: self.state.revocations.clone(),
            expires: first.ok_or(TufError::Order)?,
        });
        self.state.files = std::mem::take(&mut self.files);
        if !self.offline {
            self.state.raise_floor(self.now);
        }
        self.stage = Stage::Done;
        Ok(())
    }

    /// Step over what is stored and still current. It passes the same checks.
    fn reuse(&mut self) -> Result<(), TufError> {
        loop {
            let stage = self.stage.clone();
            let key = match &stage {
                Stage::Snapshot => "snapshot",
                Stage::Role(role) => role,
                Stage::Revocations => REVOCATIONS,
                _ => return Ok(()),
            };
            if !matches!(stage, Stage::Revocations) {
                // Asked for here, so that what is too large or missing is an error and no file.
                let (cap, name) = if key == "snapshot" { (MAX_SNAPSHOT, key) } else { (MAX_TARGETS, key) };
                if self.wanted(key)?.length.is_some_and(|length| length > cap) {
                    return Err(TufError::Size { name: format!("{name}.json"), max: cap });
                }
            } else if self.revocations_file().is_some_and(|(_, length)| length > MAX_REVOCATIONS) {
                return Err(TufError::Size { name: REVOCATIONS.to_owned(), max: MAX_REVOCATIONS });
            }
            let Some(stored) = self.state.files.get(key).cloned() else { return Ok(()) };
            let taken = match &stage {
                Stage::Snapshot => self.take_snapshot(stored.as_bytes()),
                Stage::Role(role) => self.take_role(role, stored.as_bytes()),
                _ => self.take_revocations(stored.as_bytes()),
            };
            if taken.is_err() {
                // Not the current one: fetch it.
                self.stage = stage;
                return if self.offline { taken } else { Ok(()) };
            }
        }
    }

    fn role(&self, name: &str) -> Result<Role, TufError> {
        if name == "targets" {
            return self.root.body().role(name);
        }
        let delegated = self.roles.get("targets").ok_or(TufError::Order)?.body().delegated()?;
        let role = delegated.into_iter().find(|(role, _)| role.name == name);
        role.map(|(_, role)| role).ok_or(TufError::Order)
    }

    /// What is said of the file of `role` by the file before it.
    fn wanted(&self, role: &str) -> Result<&MetaFile, TufError> {
        if role == "snapshot" {
            return self.timestamp.as_ref().ok_or(TufError::Order)?.body().snapshot();
        }
        let name = format!("{role}.json");
        let snapshot = self.snapshot.as_ref().ok_or(TufError::Order)?.body();
        snapshot.meta.get(&name).ok_or(TufError::Missing { name })
    }

    /// Digest and length of the list of revocations, if there is one.
    fn revocations_file(&self) -> Option<(String, u64)> {
        let (_, target) = trusted::find(REVOCATIONS, self.roles.get("targets")?.body(), &self.roles)?;
        Some((target.hashes.sha256.clone(), target.length))
    }

    fn check_fresh<T: super::metadata::Kind>(&self, role: &str, signed: &Signed<T>) -> Result<(), TufError> {
        if self.offline { Ok(()) } else { signed.fresh(role, self.now) }
    }
}

fn check_file(name: &str, by: &'static str, bytes: &[u8], wanted: &MetaFile) -> Result<(), TufError> {
    let mixed = |what| Err(TufError::Mixed { name: name.to_owned(), by, what });
    let length = bytes.len() as u64;
    match wanted.length {
        Some(max) if length > max => return Err(TufError::Size { name: name.to_owned(), max }),
        Some(wanted) if length < wanted => return mixed("another length"),
        _ => {}
    }
    match &wanted.hashes {
        Some(hashes) if hashes.sha256 != hex::encode(Sha256::digest(bytes)) => mixed("other bytes"),
        _ => Ok(()),
    }
}

fn check_version(name: &str, by: &'static str, found: u64, wanted: &MetaFile) -> Result<(), TufError> {
    if found == wanted.version {
        return Ok(());
    }
    Err(TufError::Mixed { name: name.to_owned(), by, what: "another version" })
}

fn text(name: &str, bytes: &[u8]) -> Result<String, TufError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TufError::Format { what: format!("{name} is not UTF-8") })?;
    Ok(text.to_owned())
}

fn missing(name: &str) -> TufError {
    TufError::Missing { name: name.to_owned() }
}
