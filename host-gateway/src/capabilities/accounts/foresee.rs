//! What a change would be on the accounts as they are: refuses what applying would refuse,
//! chooses what is left to choose, and says what it takes the place of. Changes nothing.

use std::collections::HashSet;

use super::change::{Change, Home, Lock, NewAccount, Record};
use super::database::{Account, Database, Entry};
use super::overlay::Overlay;
use super::{Provider, busy, home, quarantine, rules};
use crate::broker::wire::Request;
use crate::effects::{Effect, Foreseen, Inverse, Trace};
use crate::failure::Failure;

/// How many uids a directory service may hold before we stop looking.
const UID_ATTEMPTS: usize = 32;
/// Bounds the homes whose owners' uids are left alone.
const MAX_HOMES: usize = 100_000;

impl Provider {
    pub(crate) async fn foresee(&self, change: Change, planned: &[Effect]) -> Result<Foreseen, Failure> {
        let (change, account) = self.complete(change, &Overlay::of(planned)).await?;
        let answer = serde_json::to_value(account).map_err(|e| Failure::Failed(e.to_string()));
        Ok(Foreseen { effect: Effect::Accounts(change), answer })
    }

    /// The change, complete, and the account that it is about.
    pub(super) async fn complete(&self, change: Change, planned: &Overlay<'_>) -> Result<(Change, Account), Failure> {
        let mut database = self.database().await?;
        planned.replay(&mut database);
        let change = match change {
            Change::Create(new) => Change::Create(self.creating(&database, planned, new).await?),
            Change::Remove { name, uid, home, record } => {
                let account = database.account(database.target(&name, uid)?);
                let record = self.removing(&database, planned, &name, uid, home, record.as_deref()).await?;
                return Ok((Change::Remove { name, uid, home, record: Some(Box::new(record)) }, account));
            }
            Change::Restore(record) => {
                self.restoring(&database, planned, &record).await?;
                Change::Restore(record)
            }
            Change::Lock(lock) => Change::Lock(locking(&database, lock)?),
            Change::Unlock(lock) => Change::Unlock(locking(&database, lock)?),
            Change::SetGroups { name, uid, before, after } => {
                database.target(&name, uid)?;
                if database.groups_of(&name) != before {
                    return Err(Failure::Conflict(format!("the groups of account {name} have changed meanwhile")));
                }
                groups_exist(&database, &after)?;
                Change::SetGroups { name, uid, before, after }
            }
            Change::SetSshKeys { name, uid, before, after } => {
                let entry = database.target(&name, uid)?;
                if self.keys_of(entry, planned).await? != before {
                    return Err(Failure::Conflict(format!("the keys of account {name} have changed meanwhile")));
                }
                Change::SetSshKeys { name, uid, before, after }
            }
        };
        database.replay(&change);
        let name = change.account();
        let entry = database.find(name).ok_or_else(|| Failure::Failed(format!("account {name} is gone")))?;
        let account = database.account(entry);
        Ok((change, account))
    }

    async fn creating(
        &self,
        database: &Database,
        planned: &Overlay<'_>,
        mut new: NewAccount,
    ) -> Result<NewAccount, Failure> {
        if database.find(&new.name).is_some() {
            return Err(Failure::Conflict(format!("account {} exists already", new.name)));
        }
        if database.has_group(&new.name) {
            return Err(Failure::Conflict(format!("group {} exists already", new.name)));
        }
        groups_exist(database, &new.groups)?;
        new.groups.sort();
        let (home_root, name, shown) = (new.home_root.clone(), new.name.clone(), new.home());
        let (there, owners) = self
            .blocking(move |site| {
                // A home that was kept, or is in quarantine, must not come to belong to
                // somebody new by having its uid.
                let mut uids: HashSet<u32> = quarantine::uids(site)?.into_iter().collect();
                let Some(homes) = home::look(site, &home_root)? else { return Ok((false, uids)) };
                uids.extend(homes.names(MAX_HOMES, &home_root)?.iter().filter_map(|n| homes.owner_of(n)));
                Ok((homes.has(&name, &shown)?, uids))
            })
            .await?;
        if planned.home(&new.home()).unwrap_or(there) {
            return Err(Failure::Conflict(format!("{} exists already", new.home())));
        }
        let mut taken = owners;
        taken.extend(database.entries.iter().map(|e| e.uid).chain(planned.uids()));
        new.uid = Some(self.free_uid(database, &new, &taken).await?);
        Ok(new)
    }

    /// The uid that was asked for, or the next that nobody has.
    async fn free_uid(&self, database: &Database, new: &NewAccount, taken: &HashSet<u32>) -> Result<u32, Failure> {
        let free = |uid: &u32| !rules::system_uid(*uid) && !taken.contains(uid);
        if let Some(uid) = new.uid {
            let conflict = || Failure::Conflict(format!("uid {uid} is in use, or a home has it"));
            return Some(uid).filter(free).ok_or_else(conflict);
        }
        let unused = |uid: &u32| free(uid) && database.group_name(*uid).is_none();
        for uid in (new.uids.min..=new.uids.max).filter(unused).take(UID_ATTEMPTS) {
            if !self.site.tools.knows_uid(uid).await {
                return Ok(uid);
            }
        }
        Err(Failure::Conflict(format!("no uid is free from {} to {}", new.uids.min, new.uids.max)))
    }

    async fn removing(
        &self,
        database: &Database,
        planned: &Overlay<'_>,
        name: &str,
        uid: u32,
        fate: Home,
        expected: Option<&Record>,
    ) -> Result<Record, Failure> {
        let entry = database.target(name, uid)?;
        // A prefix root's uids say nothing about who runs on this host.
        if self.site.root.is_none() {
            let owner = name.to_owned();
            self.blocking(move |_| busy::refuse_if_in_use(&owner, uid)).await?;
        }
        let mut record = database.record(entry, fate);
        let changed = expected.map(|e| e.changed(&record)).unwrap_or_default();
        if !changed.is_empty() {
            let changed = changed.join(", ");
            return Err(Failure::Conflict(format!("account {name} was changed since: {changed}")));
        }
        if fate == Home::Quarantine {
            let moving = record.clone();
            let there = match planned.home(&record.home) {
                Some(there) => there,
                None => self.blocking(move |site| quarantine::movable(site, &moving)).await?,
            };
            if there {
                let known = expected.and_then(|e| e.quarantined.clone());
                record.quarantined = Some(known.map_or_else(|| quarantine::place(&record), Ok)?);
            }
        }
        Ok(record)
    }

    async fn restoring(&self, database: &Database, planned: &Overlay<'_>, record: &Record) -> Result<(), Failure> {
        let name = &record.name;
        if rules::system_uid(record.uid) || rules::reserved(name) {
            return Err(Failure::Conflict(format!("account {name} is the system's")));
        }
        let waits = match record.quarantined.clone() {
            None => false,
            Some(place) => {
                let planned = planned.quarantined(&place);
                let waits = match planned {
                    Some(waits) => waits,
                    None => self.blocking(move |site| quarantine::has(site, &place)).await?,
                };
                if !waits {
                    return Err(Failure::NotFound(format!("the home of account {name} is no longer in quarantine")));
                }
                waits
            }
        };
        // Bringing it back may have been interrupted before its home came.
        let begun = database.find(name).is_some_and(|e| waits && e.uid == record.uid && e.home == record.home);
        if !begun && (database.find(name).is_some() || database.uses(record.uid)) {
            return Err(Failure::Conflict(format!("the name or uid of account {name} is in use again")));
        }
        groups_exist(database, &record.groups)?;
        if let Some(group) = database.group_name(record.gid).filter(|g| *g != record.group) {
            return Err(Failure::Conflict(format!("gid {} is group {group}'s now", record.gid)));
        }
        if waits {
            let path = record.home.clone();
            let there = match planned.home(&path) {
                Some(there) => there,
                None => self.blocking(move |site| home::exists(site, &path)).await?,
            };
            if there {
                return Err(Failure::Conflict(format!("{} exists again", record.home)));
            }
        }
        Ok(())
    }

    /// The account's keys as a plan so far has them.
    pub(super) async fn keys_of(&self, entry: &Entry, planned: &Overlay<'_>) -> Result<Option<String>, Failure> {
        if let Some(keys) = planned.keys(&entry.name) {
            return Ok(keys);
        }
        if let Some(broker) = self.reach.broker() {
            return broker.ask(Request::Keys { name: entry.name.clone(), uid: entry.uid }).await;
        }
        let entry = entry.clone();
        self.blocking(move |site| home::read_keys(site, &entry)).await
    }

    /// Whether a foreseen change happened, by what the files show.
    pub(crate) async fn trace(&self, change: &Change) -> Result<Trace, Failure> {
        let _one_at_a_time = self.changing.lock().await;
        let database = self.database().await?;
        let entry = database.find(change.account());
        let present = || Trace::Present(Effect::Accounts(change.clone()).inverse());
        let waits = match change {
            Change::Remove { record: Some(record), .. } => record.quarantined.clone(),
            Change::Restore(record) => record.quarantined.clone(),
            _ => None,
        };
        let waits = match waits {
            Some(place) => self.blocking(move |site| quarantine::has(site, &place)).await?,
            None => false,
        };
        let happened = |before: bool, after: bool| match (before, after) {
            (true, _) => Trace::Absent,
            (false, true) => present(),
            (false, false) => Trace::Unclear,
        };
        Ok(match (change, entry) {
            (Change::Create(_), None) | (Change::Restore(_), None) => Trace::Absent,
            (Change::Create(new), Some(entry)) if new.uid == Some(entry.uid) => {
                // Perhaps without its password or home: whatever is there of it goes.
                let (name, uid) = (new.name.clone(), entry.uid);
                let remove = Change::Remove { name, uid, home: Home::Quarantine, record: None };
                Trace::Present(Inverse::Effect(Box::new(Effect::Accounts(remove))))
            }
            (Change::Remove { .. }, None) => present(),
            // Its home may have gone before it.
            (Change::Remove { uid, .. }, Some(entry)) if entry.uid == *uid => happened(!waits, waits),
            (Change::Restore(record), Some(entry)) if entry.uid == record.uid && waits => {
                // Its home waits still: the account goes again, and the home stays where it is.
                let (name, uid) = (record.name.clone(), entry.uid);
                let remove = Change::Remove { name, uid, home: Home::Keep, record: None };
                Trace::Present(Inverse::Effect(Box::new(Effect::Accounts(remove))))
            }
            (Change::Restore(record), Some(entry)) if entry.uid == record.uid => present(),
            (Change::Lock(lock) | Change::Unlock(lock), Some(_)) => {
                let now = database.lock_state(&lock.name);
                happened(now == lock.before, now == lock.after)
            }
            (Change::SetGroups { name, before, after, .. }, Some(_)) => {
                let now = database.groups_of(name);
                happened(now == *before, now == *after)
            }
            (Change::SetSshKeys { before, after, .. }, Some(entry)) => {
                let now = self.keys_of(entry, &Overlay::of(&[])).await?;
                happened(now == *before, now == *after)
            }
            _ => Trace::Unclear,
        })
    }
}

impl Change {
    fn account(&self) -> &str {
        match self {
            Self::Create(new) => &new.name,
            Self::Restore(record) => &record.name,
            Self::Lock(lock) | Self::Unlock(lock) => &lock.name,
            Self::Remove { name, .. } | Self::SetGroups { name, .. } | Self::SetSshKeys { name, .. } => name,
        }
    }
}

fn locking(database: &Database, lock: Lock) -> Result<Lock, Failure> {
    let entry = database.target(&lock.name, lock.uid)?;
    if database.lock_state(&entry.name) != lock.before {
        return Err(Failure::Conflict(format!("the lock of account {} has changed meanwhile", lock.name)));
    }
    Ok(lock)
}

fn groups_exist(database: &Database, groups: &[String]) -> Result<(), Failure> {
    match groups.iter().find(|g| !database.has_group(g)) {
        None => Ok(()),
        Some(group) => Err(Failure::NotFound(format!("there is no group {group}"))),
    }
}
