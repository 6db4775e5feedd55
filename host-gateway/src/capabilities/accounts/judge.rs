//! A whole change, asked of a grant by who did not make it: the broker gets changes from a
//! gateway that may have been taken over, so that nothing in them counts as checked. Refuses
//! what the guest's functions would refuse, field by field, and what they could not ask for.

use viworks_signing::grant::{AccountsScope, Grant, Granted};

use super::change::{Change, Home, Lock, NewAccount, Record};
use super::database::{Database, Entry, LockLine};
use super::guest::{self, MAX_GROUPS, granted, refuse_system, within};
use super::{Provider, home, keys, rules};
use crate::failure::Failure;

/// Bounds a text of public keys.
const MAX_KEYS_TEXT: usize = 64 * 1024;
/// A day that no clock of ours will see.
const LAST_DAY: i64 = 1_000_000;

impl Provider {
    /// # Errors
    /// `denied` with the rule, `invalid-argument`, or that the host can't be asked.
    pub(crate) async fn judge(&self, change: &Change, grant: &Grant) -> Result<(), Failure> {
        let scope = granted(grant)?;
        let database = self.database().await?;
        match change {
            Change::Create(new) => creating(new, scope, &database),
            Change::Remove { name, uid, home, record } => {
                let entry = touchable(name, *uid, scope, &database)?;
                if let Some(record) = record {
                    about(record, name, *uid)?;
                }
                match (home, entry) {
                    (Home::Quarantine, Some(entry)) => home_granted(scope, &entry.home),
                    _ => Ok(()),
                }
            }
            Change::Restore(record) => {
                about(record, &record.name, record.uid)?;
                named(&record.name, record.uid, scope)?;
                rules::path("home", &record.home)?;
                if record.quarantined.is_some() { home_granted(scope, &record.home) } else { Ok(()) }
            }
            Change::Lock(lock) | Change::Unlock(lock) => locking(lock, scope, &database),
            Change::SetGroups { name, uid, before, after } => {
                touchable(name, *uid, scope, &database)?;
                groups(before, after, scope, &database)
            }
            Change::SetSshKeys { name, uid, before, after } => {
                let entry = touchable(name, *uid, scope, &database)?;
                for text in [before, after].into_iter().flatten() {
                    if text.len() > MAX_KEYS_TEXT || text.contains('\0') {
                        return Err(invalid("public keys of more than 64 KiB, or with a NUL"));
                    }
                }
                entry.map_or(Ok(()), |entry| home_granted(scope, &entry.home))
            }
        }
    }

    /// How the accounts are locked that a grant covers.
    ///
    /// # Errors
    /// `denied`, or that the files can't be read.
    pub(crate) async fn locks(&self, grant: &Grant) -> Result<serde_json::Value, Failure> {
        let scope = granted(grant)?;
        let locks: Vec<LockLine> = self.database().await?.locks(|entry| guest::visible(scope, entry));
        serde_json::to_value(locks).map_err(|e| Failure::Failed(e.to_string()))
    }

    /// The public keys of an account that a grant covers.
    ///
    /// # Errors
    /// `denied`, `not-found`, or that they can't be read.
    pub(crate) async fn keys_within(&self, name: &str, uid: u32, grant: &Grant) -> Result<Option<String>, Failure> {
        let scope = granted(grant)?;
        let database = self.database().await?;
        let entry = touchable(name, uid, scope, &database)?.cloned();
        let entry = entry.ok_or_else(|| Failure::NotFound(format!("there is no account {name}")))?;
        home_granted(scope, &entry.home)?;
        self.blocking(move |site| home::read_keys(site, &entry)).await
    }
}

fn creating(new: &NewAccount, scope: &Granted<AccountsScope>, database: &Database) -> Result<(), Failure> {
    rules::name(&new.name)?;
    rules::comment(&new.comment)?;
    refuse_system(&new.name, new.uid)?;
    let name = &new.name;
    require(scope, "accounts.names", || format!("account {name}"), |s| s.names.match_any(name))?;
    rules::path("shell", &new.shell)?;
    require(scope, "accounts.shells", || format!("shell {:?}", new.shell), |s| s.shells.contains(&new.shell))?;
    let (least, most) = new.uid.map_or((new.uids.min, new.uids.max), |uid| (uid, uid));
    if least > most || rules::system_uid(least) {
        return Err(invalid("no uid, or a system account's"));
    }
    let inside = |s: &AccountsScope| s.uids.contains(least) && s.uids.contains(most);
    require(scope, "accounts.uids", || format!("uids from {least} to {most}"), inside)?;
    rules::path("home_root", &new.home_root)?;
    home_granted(scope, &new.home())?;
    // Where homes are, the policy says: not anywhere below that.
    let root = scope.scopes().last().map(|s| s.home_root.as_str());
    require(
        scope,
        "accounts.home_root",
        || format!("homes in {}", new.home_root),
        |_| root == Some(new.home_root.as_str()),
    )?;
    groups(&[], &new.groups, scope, database)?;
    let whole = |key: &String| keys::parse(key).is_ok_and(|parsed| parsed == *key);
    if new.ssh_keys.len() > keys::MAX_KEYS || !new.ssh_keys.iter().all(whole) {
        return Err(invalid("too many ssh keys, or one that is no key"));
    }
    match &new.password_hash {
        None => Ok(()),
        Some(hash) => {
            let set = || "setting a password hash".to_owned();
            require(scope, "accounts.password_hashes", set, |s| s.password_hashes)?;
            rules::password_hash(hash)
        }
    }
}

/// What a record may say that stands beside a name and uid: a foreseen record is compared
/// with the host or was sealed; the place in the quarantine is neither.
fn about(record: &Record, name: &str, uid: u32) -> Result<(), Failure> {
    if record.name != name || record.uid != uid {
        return Err(invalid("a record of another account"));
    }
    let Some(place) = &record.quarantined else { return Ok(()) };
    let rest = place.strip_prefix(&format!("{name}-{uid}-")).and_then(|rest| rest.split_once('-'));
    let digits = |text: &str, most: usize, ok: fn(&u8) -> bool| {
        !text.is_empty() && text.len() <= most && text.as_bytes().iter().all(ok)
    };
    match rest {
        Some((at, noise)) if digits(at, 20, u8::is_ascii_digit) && digits(noise, 8, u8::is_ascii_hexdigit) => Ok(()),
        _ => Err(invalid("a place in the quarantine that is not this account's")),
    }
}

fn named(name: &str, uid: u32, scope: &Granted<AccountsScope>) -> Result<(), Failure> {
    rules::name(name)?;
    refuse_system(name, Some(uid))?;
    require(scope, "accounts.names", || format!("account {name}"), |s| s.names.match_any(name))?;
    require(scope, "accounts.uids", || format!("account {name} (uid {uid})"), |s| s.uids.contains(uid))
}

/// The account, if it is there: what is not can't be harmed, and foreseeing says so.
fn touchable<'d>(
    name: &str,
    uid: u32,
    scope: &Granted<AccountsScope>,
    database: &'d Database,
) -> Result<Option<&'d Entry>, Failure> {
    named(name, uid, scope)?;
    let Some(entry) = database.find(name) else { return Ok(None) };
    named(name, entry.uid, scope)?;
    Ok(Some(entry))
}

fn home_granted(scope: &Granted<AccountsScope>, home: &str) -> Result<(), Failure> {
    rules::path("home", home)?;
    require(scope, "accounts.home_root", || format!("home {home}"), |s| within(&s.home_root, home))
}

/// What is added and what is taken away must be granted; what stays need not be. `before`
/// is compared with the host when it is foreseen.
fn groups(
    before: &[String],
    after: &[String],
    scope: &Granted<AccountsScope>,
    database: &Database,
) -> Result<(), Failure> {
    let added: Vec<_> = after.iter().filter(|g| !before.contains(g)).collect();
    if added.len() > MAX_GROUPS {
        return Err(invalid("too many groups"));
    }
    for group in &added {
        rules::name(group)?;
        if database.is_root_group(group) {
            return Err(guest::system(format!("group {group} is root's")));
        }
    }
    let removed = before.iter().filter(|g| !after.contains(g));
    for group in added.into_iter().chain(removed) {
        require(scope, "accounts.groups", || format!("group {group}"), |s| s.groups.match_any(group))?;
    }
    Ok(())
}

fn locking(lock: &Lock, scope: &Granted<AccountsScope>, database: &Database) -> Result<(), Failure> {
    touchable(&lock.name, lock.uid, scope, database)?;
    if lock.after.expires.is_some_and(|day| !(0..=LAST_DAY).contains(&day)) {
        return Err(invalid("a day of expiry that is none"));
    }
    let opens = !lock.after.locked && database.lock_state(&lock.name).locked;
    if opens && database.has_no_password(&lock.name) {
        return Err(invalid("nothing is behind the lock: unlocking would open the account without a password"));
    }
    Ok(())
}

fn require(
    scope: &Granted<AccountsScope>,
    rule: &str,
    what: impl FnOnce() -> String,
    allows: impl Fn(&AccountsScope) -> bool,
) -> Result<(), Failure> {
    scope.require(rule, allows).map_err(|refused| Failure::Denied {
        capability: "accounts".into(),
        rule: refused.rule,
        message: what(),
    })
}

fn invalid(what: &str) -> Failure {
    Failure::InvalidArgument(what.to_owned())
}
