//! passwd(5), group(5) and shadow(5), read as text from one root. Never through NSS: what is
//! changed is these files, so these files are what is read. Bounded, and malformed lines
//! are no accounts.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::change::{Change, LockState, Record};
use super::{Home, rules};
use crate::failure::Failure;

/// Bounds each of the three files.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// All accounts and groups at one moment.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) entries: Vec<Entry>,
    groups: Vec<Group>,
    shadow: HashMap<String, Shadow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) comment: String,
    pub(super) home: String,
    pub(super) shell: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

#[derive(Debug)]
struct Shadow {
    password: String,
    expires: Option<i64>,
}

/// What may be known of a line of shadow(5) without reading a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockLine {
    pub(super) name: String,
    pub(super) locked: bool,
    /// Nothing is behind the lock.
    pub(super) empty: bool,
    pub(super) expires: Option<i64>,
}

/// An account as guests see it: the serialisable face of the WIT record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) comment: String,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) groups: Vec<String>,
    pub(super) locked: bool,
    pub(super) expired: bool,
}

impl Database {
    /// # Errors
    /// `unavailable` if a file can't be read or is too big.
    pub(super) fn read(base: &Path) -> Result<Self, Failure> {
        let (passwd, group, shadow) = (read(base, "passwd")?, read(base, "group")?, read(base, "shadow")?);
        Ok(Self {
            entries: passwd.lines().filter_map(Entry::parse).collect(),
            groups: group.lines().filter_map(Group::parse).collect(),
            shadow: shadow.lines().filter_map(Shadow::parse).collect(),
        })
    }

    /// The same from what everybody may read, and what the broker says of locks.
    ///
    /// # Errors
    /// `unavailable` if a file can't be read or is too big.
    pub(super) fn public(base: &Path, locks: Vec<LockLine>) -> Result<Self, Failure> {
        let (passwd, group) = (read(base, "passwd")?, read(base, "group")?);
        let shadow = locks.into_iter().map(|lock| {
            let password = match (lock.locked, lock.empty) {
                (true, true) => "!",
                (true, false) => "!*",
                (false, true) => "",
                (false, false) => "*",
            };
            (lock.name, Shadow { password: password.to_owned(), expires: lock.expires })
        });
        Ok(Self {
            entries: passwd.lines().filter_map(Entry::parse).collect(),
            groups: group.lines().filter_map(Group::parse).collect(),
            shadow: shadow.collect(),
        })
    }

    /// How the accounts that pass are locked.
    pub(super) fn locks(&self, passes: impl Fn(&Entry) -> bool) -> Vec<LockLine> {
        let line = |entry: &Entry| {
            let shadow = self.shadow.get(&entry.name)?;
            let (locked, empty) = (shadow.password.starts_with('!'), self.has_no_password(&entry.name));
            Some(LockLine { name: entry.name.clone(), locked, empty, expires: shadow.expires })
        };
        self.entries.iter().filter(|e| passes(e)).filter_map(line).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// The entry that a change was made for, unless the host has changed since.
    ///
    /// # Errors
    /// `not-found`, `conflict`.
    pub(super) fn target(&self, name: &str, uid: u32) -> Result<&Entry, Failure> {
        let entry = self.find(name).ok_or_else(|| Failure::NotFound(format!("there is no account {name}")))?;
        if entry.uid != uid {
            return Err(Failure::Conflict(format!("account {name} has another uid than when this was decided")));
        }
        // The gate refused these before; an effect from a journal passes here alone.
        if rules::system_uid(uid) || rules::reserved(name) {
            return Err(Failure::Conflict(format!("account {name} is the system's")));
        }
        if self.entries.iter().filter(|e| e.uid == uid || e.name == name).count() != 1 {
            return Err(Failure::Conflict(format!("account {name} shares its name or uid with another")));
        }
        Ok(entry)
    }

    pub(super) fn has_group(&self, name: &str) -> bool {
        self.groups.iter().any(|g| g.name == name)
    }

    pub(super) fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find(|g| g.gid == gid).map(|g| g.name.as_str())
    }

    /// Whether a group of this name is root's.
    pub(super) fn is_root_group(&self, name: &str) -> bool {
        self.groups.iter().any(|g| g.name == name && g.gid == 0)
    }

    pub(super) fn uses(&self, uid: u32) -> bool {
        self.entries.iter().any(|e| e.uid == uid)
    }

    /// Supplementary groups, sorted.
    pub(super) fn groups_of(&self, name: &str) -> Vec<String> {
        let member = |g: &&Group| g.members.iter().any(|m| m == name);
        let mut groups: Vec<_> = self.groups.iter().filter(member).map(|g| g.name.clone()).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    pub(super) fn lock_state(&self, name: &str) -> LockState {
        // Without a shadow entry no password opens it, and nothing makes it expire.
        self.shadow.get(name).map_or(LockState { locked: true, expires: None }, |s| LockState {
            locked: s.password.starts_with('!'),
            expires: s.expires,
        })
    }

    /// Whether nothing is behind the lock: unlocking would open it without a password.
    pub(super) fn has_no_password(&self, name: &str) -> bool {
        self.shadow.get(name).is_none_or(|s| s.password.trim_start_matches('!').is_empty())
    }

    pub(super) fn account(&self, entry: &Entry) -> Account {
        let state = self.lock_state(&entry.name);
        Account {
            name: entry.name.clone(),
            uid: entry.uid,
            gid: entry.gid,
            comment: entry.comment.clone(),
            home: entry.home.clone(),
            shell: entry.shell.clone(),
            groups: self.groups_of(&entry.name),
            locked: state.locked,
            expired: state.expires.is_some_and(|day| (0..=today()).contains(&day)),
        }
    }

    /// The accounts as a change would leave them.
    pub(super) fn replay(&mut self, change: &Change) {
        match change {
            Change::Create(new) => {
                let uid = new.uid.unwrap_or_default();
                let gid = if self.group_name(uid).is_none() { uid } else { self.free_gid() };
                self.entries.push(Entry {
                    name: new.name.clone(),
                    uid,
                    gid,
                    comment: new.comment.clone(),
                    home: new.home(),
                    shell: new.shell.clone(),
                });
                self.groups.push(Group { name: new.name.clone(), gid, members: Vec::new() });
                self.set_groups(&new.name, &new.groups);
                let password = new.password_hash.clone().unwrap_or_else(|| "*".to_owned());
                self.shadow.insert(new.name.clone(), Shadow { password, expires: None });
            }
            Change::Remove { name, .. } => {
                self.set_groups(name, &[]);
                self.entries.retain(|e| e.name != *name);
                self.groups.retain(|g| g.name != *name || !g.members.is_empty());
                self.shadow.remove(name);
            }
            Change::Restore(record) => {
                let Record { name, uid, gid, comment, home, shell, .. } = (**record).clone();
                if self.group_name(gid).is_none() {
                    self.groups.push(Group { name: record.group.clone(), gid, members: Vec::new() });
                }
                self.entries.retain(|e| e.name != name);
                self.entries.push(Entry { name, uid, gid, comment, home, shell });
                self.set_groups(&record.name, &record.groups);
                let shadow = Shadow { password: record.password.clone(), expires: record.expires };
                self.shadow.insert(record.name.clone(), shadow);
            }
            Change::Lock(lock) | Change::Unlock(lock) => {
                let Some(shadow) = self.shadow.get_mut(&lock.name) else { return };
                let bare = shadow.password.strip_prefix('!').unwrap_or(&shadow.password);
                shadow.password = if lock.after.locked { format!("!{bare}") } else { bare.to_owned() };
                shadow.expires = lock.after.expires;
            }
            Change::SetGroups { name, after, .. } => self.set_groups(name, after),
            Change::SetSshKeys { .. } => {}
        }
    }

    fn set_groups(&mut self, name: &str, wanted: &[String]) {
        for group in &mut self.groups {
            group.members.retain(|m| m != name);
            if wanted.contains(&group.name) {
                group.members.push(name.to_owned());
            }
        }
    }

    fn free_gid(&self) -> u32 {
        (rules::MIN_UID..rules::NOBODY).find(|gid| self.group_name(*gid).is_none()).unwrap_or_default()
    }

    /// Everything that is needed to bring the account back.
    pub(super) fn record(&self, entry: &Entry, fate: Home) -> Record {
        let entry = entry.clone();
        Record {
            group: self.group_name(entry.gid).unwrap_or(&entry.name).to_owned(),
            groups: self.groups_of(&entry.name),
            password: self.shadow.get(&entry.name).map_or_else(|| "*".to_owned(), |s| s.password.clone()),
            expires: self.lock_state(&entry.name).expires,
            fate,
            quarantined: None,
            name: entry.name,
            uid: entry.uid,
            gid: entry.gid,
            comment: entry.comment,
            home: entry.home,
            shell: entry.shell,
        }
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let [name, _, uid, gid, comment, home, shell] = line.split(':').collect::<Vec<_>>()[..] else { return None };
        if name.is_empty() || name.starts_with(['+', '-']) {
            return None;
        }
        let own = str::to_owned;
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        Some(Self { name: own(name), uid, gid, comment: own(comment), home: own(home), shell: own(shell) })
    }
}

impl Group {
    fn parse(line: &str) -> Option<Self> {
        let [name, _, gid, members] = line.split(':').collect::<Vec<_>>()[..] else { return None };
        let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(Self { name: name.to_owned(), gid: gid.parse().ok()?, members })
    }
}

impl Shadow {
    fn parse(line: &str) -> Option<(String, Self)> {
        let fields: Vec<_> = line.split(':').collect();
        let (name, password) = (fields.first()?, fields.get(1)?);
        let expires = fields.get(7).and_then(|day| day.parse().ok()).filter(|day| *day >= 0);
        Some(((*name).to_owned(), Self { password: (*password).to_owned(), expires }))
    }
}

/// Days since 1970, UTC, as shadow(5) counts.
fn today() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp() / 86_400
}

fn read(base: &Path, name: &str) -> Result<String, Failure> {
    text(&base.join("etc").join(name)).map_err(|e| Failure::Unavailable(format!("/etc/{name}: {e}")))
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("more than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
