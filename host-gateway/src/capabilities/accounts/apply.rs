//! Makes changes happen, one at a time: foresees them once more, so that the host is still
//! what the change takes the place of, then changes it. What fails in the middle is undone
//! before it is reported.

use serde_json::Value;

use super::change::{Change, Home, NewAccount, Record};
use super::database::{Database, Entry};
use super::overlay::Overlay;
use super::tools::{AddUser, Added};
use super::{Provider, home, quarantine};
use crate::failure::Failure;

/// Called under the provider's lock.
pub(super) async fn apply(provider: &Provider, change: &Change) -> Result<Value, Failure> {
    let (now, account) = provider.complete(change.clone(), &Overlay::of(&[])).await?;
    if now != *change {
        return Err(Failure::Conflict("the host has changed since this was decided".into()));
    }
    let tools = &provider.site.tools;
    match change {
        Change::Create(new) => create(provider, new).await?,
        Change::Remove { name, record, .. } => {
            remove(provider, name, record.as_deref()).await?;
            return to_json(&account);
        }
        Change::Restore(record) => restore(provider, record).await?,
        Change::Lock(lock) | Change::Unlock(lock) => tools.set_lock(&lock.name, lock.before, lock.after).await?,
        Change::SetGroups { name, after, .. } => tools.set_groups(name, after).await?,
        Change::SetSshKeys { name, before, after, .. } => set_ssh_keys(provider, name, before, after).await?,
    }
    let database = provider.database().await?;
    to_json(&database.account(entry(&database, &account.name)?))
}

fn to_json(account: &super::database::Account) -> Result<Value, Failure> {
    serde_json::to_value(account).map_err(|e| Failure::Failed(e.to_string()))
}

fn entry<'d>(database: &'d Database, name: &str) -> Result<&'d Entry, Failure> {
    database.find(name).ok_or_else(|| Failure::Failed(format!("account {name} is gone")))
}

async fn create(provider: &Provider, new: &NewAccount) -> Result<(), Failure> {
    let uid = new.uid.ok_or_else(|| Failure::Failed("no uid was foreseen".into()))?;
    let home = new.home();
    let user = AddUser {
        name: &new.name,
        uid,
        gid: None,
        comment: &new.comment,
        home: &home,
        shell: &new.shell,
        groups: &new.groups,
    };
    if provider.site.tools.add(&user).await? == Added::UidTaken {
        return Err(Failure::Conflict(format!("uid {uid} is in use")));
    }
    let finished = finish(provider, new).await;
    if finished.is_err() {
        undo_add(provider, &new.name).await;
    }
    finished
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

async fn remove(provider: &Provider, name: &str, record: Option<&Record>) -> Result<(), Failure> {
    let moved = record.and_then(|r| Some((r.clone(), r.quarantined.clone()?)));
    if let Some((record, place)) = moved.clone() {
        provider.blocking(move |site| quarantine::put(site, &record, &place)).await?;
    }
    let removed = provider.site.tools.delete(name).await;
    if removed.is_err()
        && let Some((record, place)) = moved
        && let Err(error) = provider.blocking(move |site| quarantine::take(site, &record, &place)).await
    {
        tracing::error!(account = %name, %error, "the home of an account that stays is left in quarantine");
    }
    removed
}

async fn restore(provider: &Provider, record: &Record) -> Result<(), Failure> {
    let database = provider.database().await?;
    let tools = &provider.site.tools;
    let begun = database.find(&record.name).is_some();
    if !begun {
        // A group of the account's own comes with it in one go, so that no crash leaves it alone.
        let missing = database.group_name(record.gid).is_none();
        let own = missing && record.group == record.name && record.gid == record.uid;
        if missing && !own {
            tools.add_group(&record.group, record.gid).await?;
        }
        let user = AddUser {
            name: &record.name,
            uid: record.uid,
            gid: (!own).then_some(record.gid),
            comment: &record.comment,
            home: &record.home,
            shell: &record.shell,
            groups: &record.groups,
        };
        if tools.add(&user).await? == Added::UidTaken {
            return Err(Failure::Conflict(format!("uid {} is in use again", record.uid)));
        }
    }
    let gid = provider.database().await?.find(&record.name).map(|entry| entry.gid);
    if gid != Some(record.gid) {
        undo_add(provider, &record.name).await;
        return Err(Failure::Conflict(format!("gid {} is in use again", record.gid)));
    }
    let finished = match tools.restore_shadow(record).await {
        Ok(()) => bring_home(provider, record).await,
        failed => failed,
    };
    if finished.is_err() && !begun {
        undo_add(provider, &record.name).await;
    }
    finished
}

async fn bring_home(provider: &Provider, record: &Record) -> Result<(), Failure> {
    let Some(place) = record.quarantined.clone().filter(|_| record.fate == Home::Quarantine) else { return Ok(()) };
    let record = record.clone();
    provider.blocking(move |site| quarantine::take(site, &record, &place)).await
}

async fn set_ssh_keys(
    provider: &Provider,
    name: &str,
    before: &Option<String>,
    after: &Option<String>,
) -> Result<(), Failure> {
    let database = provider.database().await?;
    let entry = entry(&database, name)?.clone();
    let (known, text) = (before.clone(), after.clone());
    let change = move |site: &super::Site| {
        // Once more, as late as it can be: its user can write this file at any moment.
        if home::read_keys(site, &entry)? != known {
            return Err(Failure::Conflict(format!("the keys of account {} have changed meanwhile", entry.name)));
        }
        home::write_keys(site, &entry, text.as_deref())
    };
    provider.blocking(change).await
}
