//! Changes of accounts as people read them. Hashes are named and not shown.

use viworks_protocol::outcome::DiffLine;

use super::change::{Change, Home, Lock, LockState, NewAccount, Record};
use crate::effects::diff::{appears, changes, goes, line, reversed};

impl Change {
    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        match self {
            Self::Create(new) => created(new),
            Self::Remove { name, uid, home, record } => match record {
                Some(record) => removed(record, *home),
                None => vec![goes("account", name), goes("uid", uid.to_string())],
            },
            Self::Restore(record) => reversed(removed(record, record.fate)),
            Self::Lock(lock) | Self::Unlock(lock) => locked(lock),
            Self::SetGroups { before, after, .. } => {
                changes("groups", shown(before), shown(after)).into_iter().collect()
            }
            Self::SetSshKeys { before, after, .. } => keys(before.as_deref(), after.as_deref()),
        }
    }
}

fn created(new: &NewAccount) -> Vec<DiffLine> {
    let mut lines = vec![appears("account", &new.name)];
    lines.extend(new.uid.map(|uid| appears("uid", uid.to_string())));
    lines.push(appears("home", new.home()));
    lines.push(appears("shell", &new.shell));
    lines.extend(some("comment", &new.comment));
    lines.extend((!new.groups.is_empty()).then(|| appears("groups", shown(&new.groups))));
    lines.extend(new.ssh_keys.iter().map(|key| appears("ssh key", key)));
    lines.extend(new.password_hash.as_ref().map(|_| appears("password", "a hash is set")));
    lines
}

fn removed(record: &Record, fate: Home) -> Vec<DiffLine> {
    let mut lines = vec![goes("account", &record.name), goes("uid", record.uid.to_string())];
    let home = match (fate, &record.quarantined) {
        (Home::Keep, _) => "kept",
        (Home::Quarantine, Some(_)) => "in quarantine",
        (Home::Quarantine, None) => "not there",
    };
    lines.push(line("home", Some(record.home.clone()), Some(home.to_owned())));
    lines.push(goes("shell", &record.shell));
    lines.extend(some("comment", &record.comment).map(|l| reversed(vec![l])).into_iter().flatten());
    lines.extend((!record.groups.is_empty()).then(|| goes("groups", shown(&record.groups))));
    lines
}

fn locked(lock: &Lock) -> Vec<DiffLine> {
    let password = |state: LockState| if state.locked { "locked" } else { "open" };
    let expires = |state: LockState| match state.expires {
        None => "never".to_owned(),
        Some(day) => format!("day {day} since 1970"),
    };
    let lines = [
        changes("password login", password(lock.before), password(lock.after)),
        changes("expires", expires(lock.before), expires(lock.after)),
    ];
    lines.into_iter().flatten().collect()
}

/// Keys that go, keys that come; nothing of those that stay.
fn keys(before: Option<&str>, after: Option<&str>) -> Vec<DiffLine> {
    let lines = |text: Option<&str>| text.unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let gone = before.iter().filter(|key| !after.contains(key)).map(|key| goes("ssh key", key));
    let new = after.iter().filter(|key| !before.contains(key)).map(|key| appears("ssh key", key));
    gone.chain(new).collect()
}

fn some(field: &str, value: &str) -> Option<DiffLine> {
    (!value.is_empty()).then(|| appears(field, value))
}

fn shown(groups: &[String]) -> String {
    if groups.is_empty() { "none".to_owned() } else { groups.join(", ") }
}
