//! Makes changes happen, one at a time: checks that the host is still as it was when the
//! change was decided, changes it, gives the way back. What fails in the middle is undone
//! before it is reported.

use std::collections::HashSet;

use serde_json::Value;

use super::change::{Change, Home, Lock, NewAccount, Record};
use super::database::{Database, Entry};
use super::tools::{AddUser, Added};
use super::{Provider, busy, home, quarantine, rules};
use crate::effects::{Applied, Effect, Inverse};
use crate::failure::Failure;

/// How many uids a directory service may hold before we stop looking.
const UID_ATTEMPTS: usize = 32;
/// Bounds the homes whose owners' uids are left alone.
const MAX_HOMES: usize = 100_000;

/// Called under the provider's lock.
pub(super) async fn apply(provider: &Provider, change: &Change) -> Result<Applied, Failure> {
    match change {
        Change::Create(new) => create(provider, new).await,
        Change::Remove { name, uid, home } => remove(provider, name, *uid, *home).await,
        Change::Restore(record) => restore(provider, record).await,
        Change::Lock(lock) => set_lock(provider, lock, Change::Unlock(lock.reversed())).await,
        Change::Unlock(lock) => set_lock(provider, lock, Change::Lock(lock.reversed())).await,
        Change::SetGroups { name, uid, before, after } => set_groups(provider, name, *uid, before, after).await,
        Change::SetSshKeys { name, uid, before, after } => set_ssh_keys(provider, name, *uid, before, after).await,
    }
}

async fn create(provider: &Provider, new: &NewAccount) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    if database.find(&new.name).is_some() {
        return Err(Failure::Conflict(format!("account {} exists already", new.name)));
    }
    groups_exist(&database, &new.groups)?;
    let home = format!("{}/{}", new.home_root, new.name);
    let (home_root, name, shown) = (new.home_root.clone(), new.name.clone(), home.clone());
    let used: Vec<u32> = database.entries.iter().map(|e| e.uid).collect();
    let taken = provider
        .blocking(move |site| {
            let homes = home::root(site, &home_root)?;
            if homes.has(&name, &shown)? {
                return Err(Failure::Conflict(format!("{shown} exists already")));
            }
            // A home that was kept, or is in quarantine, must not come to belong to
            // somebody new by having its uid.
            let mut uids: HashSet<u32> = used.into_iter().chain(quarantine::uids(site)?).collect();
            uids.extend(homes.names(MAX_HOMES, &home_root)?.iter().filter_map(|n| homes.owner_of(n)));
            Ok(uids)
        })
        .await?;

    add_with_uid(provider, new, &home, &taken).await?;
    let finished = finish(provider, new).await;
    if let Err(failure) = finished {
        undo_add(provider, &new.name).await;
        return Err(failure);
    }
    let (account, entry) = answer(provider, &new.name).await?;
    Ok(applied(account, Change::Remove { name: new.name.clone(), uid: entry.uid, home: Home::Quarantine }))
}

/// Run useradd with the uid that was asked for, or the next that is free.
async fn add_with_uid(provider: &Provider, new: &NewAccount, home: &str, taken: &HashSet<u32>) -> Result<(), Failure> {
    let free = |uid: &u32| !rules::system_uid(*uid) && !taken.contains(uid);
    let candidates: Vec<u32> = match new.uid {
        Some(uid) if !free(&uid) => return Err(Failure::Conflict(format!("uid {uid} is in use, or a home has it"))),
        Some(uid) => vec![uid],
        None => (new.uids.min..=new.uids.max).filter(free).take(UID_ATTEMPTS).collect(),
    };
    for uid in candidates {
        let user = AddUser {
            name: &new.name,
            uid,
            gid: None,
            comment: &new.comment,
            home,
            shell: &new.shell,
            groups: &new.groups,
        };
        if provider.site.tools.add(&user).await? == Added::Yes {
            return Ok(());
        }
    }
    Err(Failure::Conflict(match new.uid {
        Some(uid) => format!("uid {uid} is in use"),
        None => format!("no uid is free from {} to {}", new.uids.min, new.uids.max),
    }))
}

async fn finish(provider: &Provider, new: &NewAccount) -> Result<(), Failure> {
    if let Some(hash) = &new.password_hash {
        provider.site.tools.set_password(&new.name, hash).await?;
    }
    let database = provider.database().await?;
    let entry = database.find(&new.name).ok_or_else(|| Failure::Failed("useradd added nothing".into()))?;
    let (new, uid, gid) = (new.clone(), entry.uid, entry.gid);
    provider.blocking(move |site| home::create(site, &new, site.owner(uid, gid))).await
}

/// Take back a half-made account. Its failure is the host owner's to see.
async fn undo_add(provider: &Provider, name: &str) {
    if let Err(error) = provider.site.tools.delete(name).await {
        tracing::error!(account = %name, %error, "a half-made account is left");
    }
}

async fn remove(provider: &Provider, name: &str, uid: u32, fate: Home) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    let entry = database.target(name, uid)?;
    // A prefix root's uids say nothing about who runs on this host.
    if provider.site.root.is_none() {
        let owner = name.to_owned();
        provider.blocking(move |_| busy::refuse_if_in_use(&owner, uid)).await?;
    }
    let before = database.account(entry);
    let mut record = database.record(entry, fate);
    if fate == Home::Quarantine {
        let moving = record.clone();
        record.quarantined = provider.blocking(move |site| quarantine::put(site, &moving)).await?;
    }
    if let Err(failure) = provider.site.tools.delete(name).await {
        if let Some(place) = record.quarantined.clone() {
            let back = provider.blocking(move |site| quarantine::take(site, &record, &place)).await;
            if let Err(error) = back {
                tracing::error!(account = %name, %error, "the home of an account that stays is left in quarantine");
            }
        }
        return Err(failure);
    }
    Ok(applied(serde_json::to_value(before), Change::Restore(Box::new(record))))
}

async fn restore(provider: &Provider, record: &Record) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    if rules::system_uid(record.uid) || rules::reserved(&record.name) {
        return Err(Failure::Conflict(format!("account {} is the system's", record.name)));
    }
    if database.find(&record.name).is_some() || database.uses(record.uid) {
        return Err(Failure::Conflict(format!("the name or uid of account {} is in use again", record.name)));
    }
    groups_exist(&database, &record.groups)?;
    let tools = &provider.site.tools;
    match database.group_name(record.gid) {
        Some(group) if group == record.group => {}
        Some(group) => return Err(Failure::Conflict(format!("gid {} is group {group}'s now", record.gid))),
        None => tools.add_group(&record.group, record.gid).await?,
    }
    let user = AddUser {
        name: &record.name,
        uid: record.uid,
        gid: Some(record.gid),
        comment: &record.comment,
        home: &record.home,
        shell: &record.shell,
        groups: &record.groups,
    };
    if tools.add(&user).await? == Added::UidTaken {
        return Err(Failure::Conflict(format!("uid {} is in use again", record.uid)));
    }
    let finished = match tools.restore_shadow(record).await {
        Ok(()) => bring_home(provider, record).await,
        failed => failed,
    };
    if let Err(failure) = finished {
        undo_add(provider, &record.name).await;
        return Err(failure);
    }
    let (account, entry) = answer(provider, &record.name).await?;
    Ok(applied(account, Change::Remove { name: entry.name, uid: entry.uid, home: record.fate }))
}

async fn bring_home(provider: &Provider, record: &Record) -> Result<(), Failure> {
    let Some(place) = record.quarantined.clone() else { return Ok(()) };
    let record = record.clone();
    provider.blocking(move |site| quarantine::take(site, &record, &place)).await
}

async fn set_lock(provider: &Provider, lock: &Lock, back: Change) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    let entry = database.target(&lock.name, lock.uid)?;
    if database.lock_state(&entry.name) != lock.before {
        return Err(Failure::Conflict(format!("the lock of account {} has changed meanwhile", lock.name)));
    }
    provider.site.tools.set_lock(&lock.name, lock.before, lock.after).await?;
    let (account, _) = answer(provider, &lock.name).await?;
    Ok(applied(account, back))
}

async fn set_groups(
    provider: &Provider,
    name: &str,
    uid: u32,
    before: &[String],
    after: &[String],
) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    database.target(name, uid)?;
    if database.groups_of(name) != before {
        return Err(Failure::Conflict(format!("the groups of account {name} have changed meanwhile")));
    }
    groups_exist(&database, after)?;
    provider.site.tools.set_groups(name, after).await?;
    let (account, _) = answer(provider, name).await?;
    let back = Change::SetGroups { name: name.to_owned(), uid, before: after.to_vec(), after: before.to_vec() };
    Ok(applied(account, back))
}

async fn set_ssh_keys(
    provider: &Provider,
    name: &str,
    uid: u32,
    before: &Option<String>,
    after: &Option<String>,
) -> Result<Applied, Failure> {
    let database = provider.database().await?;
    let entry = database.target(name, uid)?.clone();
    let (known, text) = (before.clone(), after.clone());
    let change = move |site: &super::Site| {
        if home::read_keys(site, &entry)? != known {
            return Err(Failure::Conflict(format!("the keys of account {} have changed meanwhile", entry.name)));
        }
        home::write_keys(site, &entry, text.as_deref())
    };
    provider.blocking(change).await?;
    let (account, _) = answer(provider, name).await?;
    let back = Change::SetSshKeys { name: name.to_owned(), uid, before: after.clone(), after: before.clone() };
    Ok(applied(account, back))
}

fn groups_exist(database: &Database, groups: &[String]) -> Result<(), Failure> {
    match groups.iter().find(|g| !database.has_group(g)) {
        None => Ok(()),
        Some(group) => Err(Failure::NotFound(format!("there is no group {group}"))),
    }
}

type Json = Result<Value, serde_json::Error>;

/// The account as the files have it now.
async fn answer(provider: &Provider, name: &str) -> Result<(Json, Entry), Failure> {
    let database = provider.database().await?;
    let entry = database.find(name).ok_or_else(|| Failure::Failed(format!("account {name} is gone")))?;
    Ok((serde_json::to_value(database.account(entry)), entry.clone()))
}

fn applied(answer: Json, back: Change) -> Applied {
    // Strings, numbers and flags: these always become JSON.
    Applied { answer: answer.unwrap_or(Value::Null), inverse: Inverse::Effect(Box::new(Effect::Accounts(back))) }
}
