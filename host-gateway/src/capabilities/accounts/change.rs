//! What can change about accounts, as values that are journaled: each carries what it
//! needs to be applied exactly once more and to be taken back. Holds no secret but hashes.

use serde::{Deserialize, Serialize};
use viworks_signing::grant::UidRange;

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Taken back by `Remove` with quarantine: the account may have been used since.
    Create(NewAccount),
    /// Taken back by `Restore`. `record` is the account as it must still be; as it is, and
    /// where its home will wait, once that is foreseen.
    Remove {
        name: String,
        uid: u32,
        home: Home,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<Record>>,
    },
    /// Taken back by `Remove`.
    Restore(Box<Record>),
    /// Taken back by `Unlock`.
    Lock(Lock),
    /// Taken back by `Lock`.
    Unlock(Lock),
    /// Taken back by itself, the other way round.
    SetGroups { name: String, uid: u32, before: Vec<String>, after: Vec<String> },
    /// The text of `authorized_keys`; `None` is no file. Taken back by itself, the other
    /// way round.
    SetSshKeys { name: String, uid: u32, before: Option<String>, after: Option<String> },
}

/// An account that is checked and within its grant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewAccount {
    pub name: String,
    pub comment: String,
    pub shell: String,
    /// The directory that the home is made in, absolute.
    pub home_root: String,
    pub groups: Vec<String>,
    pub ssh_keys: Vec<String>,
    pub password_hash: Option<String>,
    /// The one that was asked for; once it is foreseen, the one that it gets.
    pub uid: Option<u32>,
    /// Where the uid is taken from if none was asked for.
    pub uids: UidRange,
}

/// What becomes of a removed account's home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    #[default]
    Keep,
    Quarantine,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub name: String,
    pub uid: u32,
    pub before: LockState,
    pub after: LockState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// Whether the password hash is locked by a `!`.
    pub locked: bool,
    /// Days since 1970 when the account expires.
    pub expires: Option<i64>,
}

/// A removed account, whole enough to be brought back. Password ageing is not kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The primary group's name.
    pub group: String,
    pub comment: String,
    pub home: String,
    pub shell: String,
    pub groups: Vec<String>,
    /// The password field of shadow(5).
    pub password: String,
    pub expires: Option<i64>,
    /// What was to become of the home.
    pub fate: Home,
    /// The home's name in the quarantine, if it went there.
    pub quarantined: Option<String>,
}

impl NewAccount {
    #[must_use]
    pub fn home(&self) -> String {
        format!("{}/{}", self.home_root, self.name)
    }

    /// The account as it is right after it was made.
    fn record(&self) -> Record {
        let uid = self.uid.unwrap_or_default();
        Record {
            name: self.name.clone(),
            uid,
            gid: uid,
            group: self.name.clone(),
            comment: self.comment.clone(),
            home: self.home(),
            shell: self.shell.clone(),
            groups: self.groups.clone(),
            password: self.password_hash.clone().unwrap_or_else(|| "*".to_owned()),
            expires: None,
            fate: Home::Quarantine,
            quarantined: None,
        }
    }
}

impl Record {
    /// What is different in `now`, by the names that people know. The primary group's
    /// number is the system's to choose.
    #[must_use]
    pub fn changed(&self, now: &Self) -> Vec<&'static str> {
        [
            ("uid", self.uid != now.uid),
            ("primary group", self.group != now.group),
            ("comment", self.comment != now.comment),
            ("home", self.home != now.home),
            ("shell", self.shell != now.shell),
            ("groups", self.groups != now.groups),
            ("password or lock", self.password != now.password),
            ("expiry", self.expires != now.expires),
        ]
        .into_iter()
        .filter_map(|(field, changed)| changed.then_some(field))
        .collect()
    }
}

impl LockState {
    /// No password login and, by an expiry in the past, no key login.
    pub const LOCKED: Self = Self { locked: true, expires: Some(1) };
}

impl Lock {
    /// The way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { before: self.after, after: self.before, ..self.clone() }
    }
}

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "accounts.create",
            Self::Remove { .. } => "accounts.remove",
            Self::Restore(_) => "accounts.restore",
            Self::Lock(_) => "accounts.lock",
            Self::Unlock(_) => "accounts.unlock",
            Self::SetGroups { .. } => "accounts.set-groups",
            Self::SetSshKeys { .. } => "accounts.set-ssh-keys",
        }
    }

    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Create(new) => {
                let uid = new.uid.map(|uid| format!(" (uid {uid})")).unwrap_or_default();
                let groups =
                    if new.groups.is_empty() { String::new() } else { format!(" in {}", new.groups.join(", ")) };
                format!("create account {}{uid}{groups}", new.name)
            }
            Self::Remove { name, uid, home, .. } => {
                let fate = match home {
                    Home::Keep => "keeping its home",
                    Home::Quarantine => "moving its home to quarantine",
                };
                format!("remove account {name} (uid {uid}), {fate}")
            }
            Self::Restore(record) => format!("restore account {} (uid {})", record.name, record.uid),
            Self::Lock(lock) => format!("lock account {}", lock.name),
            Self::Unlock(lock) => format!("unlock account {}", lock.name),
            Self::SetGroups { name, after, .. } if after.is_empty() => format!("take account {name} out of all groups"),
            Self::SetGroups { name, after, .. } => format!("set groups of account {name} to {}", after.join(", ")),
            Self::SetSshKeys { name, after, .. } => {
                let count = after.as_deref().map_or(0, |t| t.lines().count());
                format!("set {count} ssh keys of account {name}")
            }
        }
    }

    /// What takes a foreseen change back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Create(new) => {
                let record = new.record();
                Self::Remove { name: new.name, uid: record.uid, home: Home::Quarantine, record: Some(record.into()) }
            }
            Self::Remove { record: Some(record), .. } => Self::Restore(record),
            // Not foreseen: there is nothing yet to bring back, and `Restore` will refuse.
            Self::Remove { name, uid, home, record: None } => {
                let record = Record { fate: home, name, uid, ..Record::default() };
                Self::Restore(Box::new(record))
            }
            Self::Restore(record) => Self::Remove {
                name: record.name.clone(),
                uid: record.uid,
                home: record.fate,
                record: Some(Box::new(Record { quarantined: None, ..*record })),
            },
            Self::Lock(lock) => Self::Unlock(lock.reversed()),
            Self::Unlock(lock) => Self::Lock(lock.reversed()),
            Self::SetGroups { name, uid, before, after } => Self::SetGroups { name, uid, before: after, after: before },
            Self::SetSshKeys { name, uid, before, after } => {
                Self::SetSshKeys { name, uid, before: after, after: before }
            }
        }
    }
}
