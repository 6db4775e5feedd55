//! What can be done to a repository: made, given a release, told a revocation, its keys
//! changed, a role renewed. Each drafts the next version of the roles that it touches; none
//! publishes. Refuses a name that had other bytes, a sequence that goes back, and a
//! revocation that would be taken back.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::metadata::{Delegation, Delegations, Hashes, Root, Target, Targets};
use super::super::names::{PROGRAMS, program_name};
use super::super::role::{Key, Role, disjoint, key_id};
use super::super::{REVOCATIONS, Revocations, TufError, target_names};
use super::{Days, Draft, Error, RELEASES, REVOCATION, ROLES, Repository, Work, delegated, role_keys};
use crate::keys::PublicKey;

/// The keys of a role and how many have to sign.
#[derive(Debug, Clone)]
pub struct Keys {
    pub keys: Vec<PublicKey>,
    pub threshold: u32,
}

/// A release as the repository holds it.
#[derive(Debug, Clone)]
pub struct Release<'a> {
    pub plugin: &'a str,
    pub version: &'a semver::Version,
    pub epoch: u32,
    pub sequence: u32,
    pub component: &'a [u8],
    pub statements: &'a [u8],
}

/// A version of the gateway's program, and who takes it.
#[derive(Debug, Clone)]
pub struct GatewayProgram<'a> {
    pub version: &'a semver::Version,
    /// `linux-amd64`, for example.
    pub platform: &'a str,
    pub bytes: &'a [u8],
    pub channel: &'a str,
    /// Of the channel's agents, from 0 to 100.
    pub percent: u32,
}

impl Repository {
    /// A new one, all drafts: version 1 of every role of [`ROLES`].
    ///
    /// # Errors
    /// When a role has no keys, a threshold that can't be met, or a key of another role.
    pub fn init(keys: &BTreeMap<&str, Keys>, days: Days, now: SystemTime) -> Result<Self, Error> {
        let mut repo = Self::empty(days);
        let of = |role: &str| keys.get(role).ok_or_else(|| Error::NoRole { role: role.to_owned() });
        let (mut named, mut roles) = (BTreeMap::new(), BTreeMap::new());
        for role in ["root", "targets", "snapshot", "timestamp"] {
            let Keys { keys, threshold } = of(role)?;
            named.extend(keys.iter().map(|key| (key_id(key), Key::of(key))));
            roles.insert(role.to_owned(), role_keys(keys, *threshold));
        }
        let header = repo.header("root", "root", 1, now)?;
        repo.root.pending = Some(Draft::new(Root { header, consistent_snapshot: true, keys: named, roles }));

        let mut delegations = Delegations { keys: BTreeMap::new(), roles: Vec::new() };
        for (role, paths) in [
            (RELEASES, vec!["*.wasm".to_owned(), "*.wasm.intoto.jsonl".to_owned(), PROGRAMS.to_owned()]),
            (REVOCATION, vec![REVOCATIONS.to_owned()]),
        ] {
            let Keys { keys, threshold } = of(role)?;
            delegations.keys.extend(keys.iter().map(|key| (key_id(key), Key::of(key))));
            let keys = role_keys(keys, *threshold);
            delegations.roles.push(Delegation { name: role.to_owned(), terminating: true, paths, keys });
        }
        for role in ["targets", RELEASES, REVOCATION] {
            let header = repo.header("targets", role, 1, now)?;
            let delegations = (role == "targets").then(|| delegations.clone());
            let pending = Some(Draft::new(Targets { header, targets: BTreeMap::new(), delegations }));
            repo.roles.insert(role, Work { published: None, pending });
        }
        repo.put(REVOCATION, REVOCATIONS.to_owned(), &Revocations::default().write()?, None, now)?;
        repo.check_keys()?;
        Ok(repo)
    }

    /// Add a release, which was verified before. The same one again only renews its statements.
    ///
    /// # Errors
    /// [`Error::Replaced`], [`Error::Sequence`], or a version that makes no safe name.
    pub fn add(&mut self, release: &Release<'_>, now: SystemTime) -> Result<(), Error> {
        let (component, statements) = target_names(release.plugin, release.version)?;
        let digest = hex::encode(Sha256::digest(release.component));
        let found = (release.epoch, release.sequence);
        for (name, target) in self.targets(RELEASES).into_iter().flat_map(|role| &role.targets) {
            if *name == component && target.hashes.sha256 != digest {
                return Err(Error::Replaced { name: component });
            }
            let field = |key: &str| target.custom.as_ref().and_then(|custom| custom.get(key));
            let number = |key: &str| field(key).and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok());
            let same = field("plugin").and_then(serde_json::Value::as_str) == Some(release.plugin);
            if let (true, Some(epoch), Some(sequence)) =
                (same && name.ends_with(".wasm"), number("epoch"), number("sequence"))
                && *name != component
                && (epoch, sequence) >= found
            {
                return Err(Error::Sequence {
                    plugin: release.plugin.to_owned(),
                    version: release.version.to_string(),
                    known: format!("{epoch}.{sequence}"),
                    found: format!("{}.{}", found.0, found.1),
                });
            }
        }
        let custom = json!({
            "plugin": release.plugin, "version": release.version.to_string(),
            "epoch": release.epoch, "sequence": release.sequence,
        });
        self.put(RELEASES, component, release.component, Some(custom), now)?;
        self.put(RELEASES, statements, release.statements, None, now)
    }

    /// Add a version of the gateway's program, or stage one that is there further or less far:
    /// agents of `channel` take it, `percent` of them. A repository of an earlier time gets the
    /// delegation first, which the role `targets` signs.
    ///
    /// # Errors
    /// [`Error::Replaced`], or a version or platform that makes no safe name.
    pub fn add_program(&mut self, program: &GatewayProgram<'_>, now: SystemTime) -> Result<(), Error> {
        let name = program_name(program.version, program.platform)?;
        let sha256 = hex::encode(Sha256::digest(program.bytes));
        let known = self.targets(RELEASES).and_then(|role| role.targets.get(&name));
        if known.is_some_and(|known| known.hashes.sha256 != sha256) {
            return Err(Error::Replaced { name });
        }
        let delegations = self.targets("targets").and_then(|targets| targets.delegations.as_ref());
        let speaks = |role: &Delegation| role.name == RELEASES && role.paths.iter().any(|path| path == PROGRAMS);
        if !delegations.is_some_and(|all| all.roles.iter().any(speaks)) {
            let targets = self.edit("targets", now)?;
            for role in targets.delegations.iter_mut().flat_map(|all| &mut all.roles).filter(|r| r.name == RELEASES) {
                role.paths.push(PROGRAMS.to_owned());
            }
        }
        let custom = json!({
            "version": program.version.to_string(), "channel": program.channel, "percent": program.percent,
        });
        self.put(RELEASES, name, program.bytes, Some(custom), now)
    }

    /// Change the list of revocations, which may only grow.
    ///
    /// # Errors
    /// [`TufError::Revocations`] where it says less.
    pub fn revoke(&mut self, change: impl FnOnce(&mut Revocations), now: SystemTime) -> Result<(), Error> {
        let mut new = self.revocations.clone();
        change(&mut new);
        if !new.covers(&self.revocations) {
            return Err(TufError::Revocations { what: "says less than before" }.into());
        }
        self.put(REVOCATION, REVOCATIONS.to_owned(), &new.write()?, None, now)?;
        self.revocations = new;
        Ok(())
    }

    /// Give `role` other keys or another threshold. Roles whose file does not hold any more
    /// are drafted anew.
    ///
    /// # Errors
    /// When a key that is to go is none of the role's, or the outcome is not valid.
    pub fn rotate(
        &mut self,
        name: &str,
        add: &[PublicKey],
        remove: &[String],
        threshold: Option<u32>,
        now: SystemTime,
    ) -> Result<(), Error> {
        let role = self.role(name)?;
        let known = |id: &String| role.keys().values().any(|key| key.id() == *id);
        if let Some(id) = remove.iter().find(|id| !known(id)) {
            return Err(Error::NoKey { role: name.to_owned(), id: id.clone() });
        }
        let mut keys: Vec<PublicKey> =
            role.keys().values().filter(|key| !remove.contains(&key.id())).copied().collect();
        for key in add {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        let new = role_keys(&keys, threshold.unwrap_or(role.threshold()));
        let named = keys.iter().map(|key| (key_id(key), Key::of(key)));
        if [RELEASES, REVOCATION].contains(&name) {
            let targets = self.edit("targets", now)?;
            if let Some(delegations) = &mut targets.delegations {
                delegations.keys.extend(named);
                for role in delegations.roles.iter_mut().filter(|role| role.name == name) {
                    role.keys = new.clone();
                }
                let used = |id: &String| delegations.roles.iter().any(|role| role.keys.keyids.contains(id));
                let unused: Vec<String> = delegations.keys.keys().filter(|id| !used(id)).cloned().collect();
                unused.iter().for_each(|id| drop(delegations.keys.remove(id)));
            }
        } else {
            let root = self.edit_root(now)?;
            root.keys.extend(named);
            root.roles.insert(name.to_owned(), new);
            let used = |id: &String| root.roles.values().any(|role| role.keyids.contains(id));
            let unused: Vec<String> = root.keys.keys().filter(|id| !used(id)).cloned().collect();
            unused.iter().for_each(|id| drop(root.keys.remove(id)));
        }
        self.check_keys()?;
        if self.roles.contains_key(name) {
            self.renew_unsigned(name, now)?;
        }
        Ok(())
    }

    /// Draft the next version of `role` with the same content and a new expiry.
    ///
    /// # Errors
    /// [`Error::NoRole`]; `snapshot` and `timestamp` renew themselves when publishing.
    pub fn refresh(&mut self, role: &str, now: SystemTime) -> Result<(), Error> {
        if role == "root" { self.edit_root(now).map(drop) } else { self.edit(role, now).map(drop) }
    }

    /// Draft `role` anew if its published file lacks signatures under its new keys.
    fn renew_unsigned(&mut self, name: &str, now: SystemTime) -> Result<(), Error> {
        let role = self.role(name)?;
        let work = self.roles.get(name).ok_or_else(|| Error::NoRole { role: name.to_owned() })?;
        let lacks = work.published.as_ref().map(|draft| draft.missing(&role)).transpose()?;
        if work.pending.is_none() && lacks.is_some_and(|missing| missing.count > 0) {
            self.edit(name, now)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        role: &str,
        name: String,
        bytes: &[u8],
        custom: Option<serde_json::Value>,
        now: SystemTime,
    ) -> Result<(), Error> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let file = format!("{sha256}.{name}");
        let target = Target { length: bytes.len() as u64, hashes: Hashes { sha256 }, custom };
        if self.targets(role).and_then(|role| role.targets.get(&name)) != Some(&target) {
            self.edit(role, now)?.targets.insert(name, target);
        }
        self.written.targets.insert(file, bytes.to_vec());
        Ok(())
    }

    /// The drafted root: the next version if there was none.
    pub(super) fn edit_root(&mut self, now: SystemTime) -> Result<&mut Root, Error> {
        let no_role = || Error::NoRole { role: "root".to_owned() };
        let version = next(self.root.published.as_ref().map(|draft| draft.signed.header.version));
        let header = self.header("root", "root", version, now)?;
        let mut draft = self.root.latest().cloned().ok_or_else(no_role)?;
        draft.unsign();
        draft.signed.header = header;
        Ok(&mut self.root.pending.insert(draft).signed)
    }

    /// The drafted content of `role`: the next version if there was none.
    pub(in crate::tuf) fn edit(&mut self, role: &str, now: SystemTime) -> Result<&mut Targets, Error> {
        let no_role = || Error::NoRole { role: role.to_owned() };
        let name = ROLES.into_iter().find(|name| *name == role).ok_or_else(no_role)?;
        let work = self.roles.get(name).ok_or_else(no_role)?;
        let version = next(work.published.as_ref().map(|draft| draft.signed.header.version));
        let mut draft = work.latest().cloned().ok_or_else(no_role)?;
        draft.unsign();
        draft.signed.header = self.header("targets", role, version, now)?;
        let work = self.roles.get_mut(name).ok_or_else(no_role)?;
        Ok(&mut work.pending.insert(draft).signed)
    }

    /// Every role has a threshold that its keys can meet, and no key holds two.
    fn check_keys(&self) -> Result<(), Error> {
        let roles = ROLES.iter().map(|name| self.role(name)).collect::<Result<Vec<Role>, _>>()?;
        Ok(disjoint(&roles)?)
    }
}

fn next(version: Option<u64>) -> u64 {
    version.map_or(1, |version| version.saturating_add(1))
}

/// The role that has to sign `name`'s file, as `root` and `targets` give it.
pub(super) fn role_of(name: &str, root: &Root, targets: &Targets) -> Result<Role, Error> {
    if [RELEASES, REVOCATION].contains(&name) {
        return delegated(targets, name)?.ok_or_else(|| Error::NoRole { role: name.to_owned() });
    }
    Ok(root.role(name)?)
}
