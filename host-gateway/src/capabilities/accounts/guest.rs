//! What plugins call: every argument is checked, every layer of the grant is asked, and what
//! passes becomes a change that the recorder lets happen.

use std::sync::Arc;

use viworks_signing::grant::{AccountsScope, Grant, Granted, UidRange};

use super::change::{Change, Home, Lock, LockState, NewAccount};
use super::database::{Account, Database, Entry};
use super::overlay::Overlay;
use super::{home, keys, rules, wit};
use crate::capabilities::Call;
use crate::capabilities::wit::viworks::gateway::types;
use crate::effects::Effect;
use crate::failure::Failure;

pub(super) const MAX_GROUPS: usize = 32;
const MAX_LISTED: usize = 10_000;

/// What a host function answers: a trap, or a guest's success or failure.
type Answer<T> = wasmtime::Result<Result<T, types::Failure>>;

impl wit::Host for Call {
    async fn create(&mut self, account: wit::NewAccount) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_create(account).await.map(Into::into).map_err(Into::into))
    }

    async fn remove(&mut self, name: String, home: wit::HomeFate) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_remove(&name, home).await.map(Into::into).map_err(Into::into))
    }

    async fn lock(&mut self, name: String) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_lock(&name).await.map(Into::into).map_err(Into::into))
    }

    async fn unlock(&mut self, name: String) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_unlock(&name).await.map(Into::into).map_err(Into::into))
    }

    async fn set_groups(&mut self, name: String, groups: Vec<String>) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_set_groups(&name, groups).await.map(Into::into).map_err(Into::into))
    }

    async fn set_ssh_keys(&mut self, name: String, ssh_keys: Vec<String>) -> Answer<wit::Account> {
        self.enter()?;
        Ok(self.accounts_set_ssh_keys(&name, &ssh_keys).await.map(Into::into).map_err(Into::into))
    }

    async fn find(&mut self, name: String) -> Answer<Option<wit::Account>> {
        self.enter()?;
        Ok(self.accounts_find(&name).await.map(|a| a.map(Into::into)).map_err(Into::into))
    }

    async fn list(&mut self) -> Answer<Vec<wit::Account>> {
        self.enter()?;
        Ok(self.accounts_list().await.map(|a| a.into_iter().map(Into::into).collect()).map_err(Into::into))
    }
}

impl Call {
    async fn accounts_create(&mut self, new: wit::NewAccount) -> Result<Account, Failure> {
        let (grant, name) = (Arc::clone(&self.grant), new.name);
        let scope = granted(&grant)?;
        rules::name(&name)?;
        let comment = new.comment.unwrap_or_default();
        rules::comment(&comment)?;
        refuse_system(&name, None)?;
        self.require(scope, "accounts.names", || format!("account {name}"), |s| s.names.match_any(&name))?;

        let shell = match new.shell {
            Some(shell) => shell,
            None => default_shell(scope).unwrap_or_default(),
        };
        self.require(scope, "accounts.shells", || format!("shell {shell:?}"), |s| s.shells.contains(&shell))?;
        rules::path("shell", &shell)?;
        if let Some(uid) = new.uid {
            refuse_system(&name, Some(uid))?;
            self.require(scope, "accounts.uids", || format!("uid {uid}"), |s| s.uids.contains(uid))?;
        }
        let uids = common_uids(scope);
        self.require(scope, "accounts.uids", || "no uid is in every range".into(), |_| uids.min <= uids.max)?;

        // The host's owner says where homes are: the policy is the last layer.
        let home_root = scope.scopes().last().map(|s| s.home_root.clone()).unwrap_or_default();
        rules::path("home_root", &home_root)?;
        let home = format!("{home_root}/{name}");
        self.require(scope, "accounts.home_root", || format!("home {home}"), |s| within(&s.home_root, &home))?;

        let database = self.host.accounts.planned(self.recorder.planned()).await?;
        let groups = self.new_groups(scope, &database, &[], new.groups)?;
        if let Some(hash) = &new.password_hash {
            let set = || "setting a password hash".to_owned();
            self.require(scope, "accounts.password_hashes", set, |s| s.password_hashes)?;
            rules::password_hash(hash)?;
        }
        let new = NewAccount {
            ssh_keys: parse_keys(&new.ssh_keys)?,
            password_hash: new.password_hash,
            uid: new.uid,
            name,
            comment,
            shell,
            home_root,
            groups,
            uids,
        };
        self.perform(Effect::Accounts(Change::Create(new))).await
    }

    async fn accounts_remove(&mut self, name: &str, fate: wit::HomeFate) -> Result<Account, Failure> {
        let (grant, (_, entry)) = (Arc::clone(&self.grant), self.touchable(name).await?);
        let home = match fate {
            wit::HomeFate::Keep => Home::Keep,
            wit::HomeFate::Quarantine => {
                self.require_home(granted(&grant)?, &entry)?;
                Home::Quarantine
            }
            wit::HomeFate::Other(other) => {
                return Err(Failure::InvalidArgument(format!("home fate {other:?} is not known here")));
            }
        };
        self.perform(Effect::Accounts(Change::Remove { name: entry.name, uid: entry.uid, home, record: None })).await
    }

    async fn accounts_lock(&mut self, name: &str) -> Result<Account, Failure> {
        let (database, entry) = self.touchable(name).await?;
        let before = database.lock_state(name);
        let lock = Lock { name: entry.name, uid: entry.uid, before, after: LockState::LOCKED };
        self.perform(Effect::Accounts(Change::Lock(lock))).await
    }

    async fn accounts_unlock(&mut self, name: &str) -> Result<Account, Failure> {
        let (database, entry) = self.touchable(name).await?;
        let before = database.lock_state(name);
        let after = LockState {
            // Without a hash behind the lock, unlocking would open it without a password.
            locked: before.locked && database.has_no_password(name),
            // An expiry that `lock` did not set is somebody's decision.
            expires: before.expires.filter(|day| Some(*day) != LockState::LOCKED.expires),
        };
        let lock = Lock { name: entry.name, uid: entry.uid, before, after };
        self.perform(Effect::Accounts(Change::Unlock(lock))).await
    }

    async fn accounts_set_groups(&mut self, name: &str, groups: Vec<String>) -> Result<Account, Failure> {
        let (grant, (database, entry)) = (Arc::clone(&self.grant), self.touchable(name).await?);
        let before = database.groups_of(name);
        let after = self.new_groups(granted(&grant)?, &database, &before, groups)?;
        let change = Change::SetGroups { name: entry.name, uid: entry.uid, before, after };
        self.perform(Effect::Accounts(change)).await
    }

    async fn accounts_set_ssh_keys(&mut self, name: &str, lines: &[String]) -> Result<Account, Failure> {
        let (grant, (_, entry)) = (Arc::clone(&self.grant), self.touchable(name).await?);
        self.require_home(granted(&grant)?, &entry)?;
        let after = Some(home::file_of(&parse_keys(lines)?));
        let before = self.host.accounts.keys_of(&entry, &Overlay::of(self.recorder.planned())).await?;
        let (name, uid) = (entry.name, entry.uid);
        self.perform(Effect::Accounts(Change::SetSshKeys { name, uid, before, after })).await
    }

    async fn accounts_find(&mut self, name: &str) -> Result<Option<Account>, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        rules::name(name)?;
        let database = self.host.accounts.planned(self.recorder.planned()).await?;
        Ok(database.find(name).filter(|e| visible(scope, e)).map(|e| database.account(e)))
    }

    async fn accounts_list(&mut self) -> Result<Vec<Account>, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        let database = self.host.accounts.planned(self.recorder.planned()).await?;
        let mut entries: Vec<_> = database.entries.iter().filter(|e| visible(scope, e)).collect();
        if entries.len() > MAX_LISTED {
            return Err(Failure::Failed(format!(
                "{} accounts are more than the {MAX_LISTED} of a list",
                entries.len()
            )));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries.into_iter().map(|e| database.account(e)).collect())
    }

    /// An existing account that the grant covers and that is not the system's.
    async fn touchable(&mut self, name: &str) -> Result<(Database, Entry), Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        rules::name(name)?;
        refuse_system(name, None)?;
        self.require(scope, "accounts.names", || format!("account {name}"), |s| s.names.match_any(name))?;
        let database = self.host.accounts.planned(self.recorder.planned()).await?;
        let entry = database.find(name).ok_or_else(|| Failure::NotFound(format!("there is no account {name}")))?;
        refuse_system(name, Some(entry.uid))?;
        let uid = entry.uid;
        self.require(scope, "accounts.uids", || format!("account {name} (uid {uid})"), |s| s.uids.contains(uid))?;
        let entry = entry.clone();
        Ok((database, entry))
    }

    fn require_home(&mut self, scope: &Granted<AccountsScope>, entry: &Entry) -> Result<(), Failure> {
        let home = &entry.home;
        self.require(scope, "accounts.home_root", || format!("home {home}"), |s| within(&s.home_root, home))
    }

    /// Sorted groups to have. What is added and what is taken away must be granted; what
    /// stays need not be.
    fn new_groups(
        &mut self,
        scope: &Granted<AccountsScope>,
        database: &Database,
        before: &[String],
        mut groups: Vec<String>,
    ) -> Result<Vec<String>, Failure> {
        if groups.len() > MAX_GROUPS {
            return Err(Failure::InvalidArgument(format!("more than {MAX_GROUPS} groups")));
        }
        groups.sort();
        groups.dedup();
        for group in groups.iter().filter(|g| !before.contains(g)) {
            rules::name(group)?;
            if database.is_root_group(group) {
                return Err(system(format!("group {group} is root's")));
            }
        }
        let added = groups.iter().filter(|g| !before.contains(g));
        let removed = before.iter().filter(|g| !groups.contains(g));
        for group in added.chain(removed) {
            self.require(scope, "accounts.groups", || format!("group {group}"), |s| s.groups.match_any(group))?;
        }
        match groups.iter().find(|g| !database.has_group(g)) {
            None => Ok(groups),
            Some(group) => Err(Failure::NotFound(format!("there is no group {group}"))),
        }
    }
}

pub(super) fn granted(grant: &Grant) -> Result<&Granted<AccountsScope>, Failure> {
    grant.accounts.as_ref().ok_or_else(|| Failure::Denied {
        capability: "accounts".into(),
        rule: "grant: accounts".into(),
        message: "accounts is not granted".into(),
    })
}

pub(super) fn system(message: String) -> Failure {
    Failure::Denied { capability: "accounts".into(), rule: "gateway: accounts.system".into(), message }
}

/// No grant reaches these.
pub(super) fn refuse_system(name: &str, uid: Option<u32>) -> Result<(), Failure> {
    if rules::reserved(name) || uid.is_some_and(rules::system_uid) {
        return Err(system(format!("account {name} is root's or the system's, or its name carries rights")));
    }
    Ok(())
}

pub(super) fn visible(scope: &Granted<AccountsScope>, entry: &Entry) -> bool {
    let covers = |s: &AccountsScope| s.uids.contains(entry.uid) && s.names.match_any(&entry.name);
    !rules::system_uid(entry.uid) && !rules::reserved(&entry.name) && scope.scopes().all(covers)
}

/// The policy's first shell that every layer has.
fn default_shell(scope: &Granted<AccountsScope>) -> Option<String> {
    let policy = scope.scopes().last()?;
    policy.shells.iter().find(|shell| scope.scopes().all(|s| s.shells.contains(shell))).cloned()
}

fn common_uids(scope: &Granted<AccountsScope>) -> UidRange {
    let start = UidRange { min: rules::MIN_UID, max: u32::MAX - 1 };
    scope.scopes().fold(start, |all, s| UidRange { min: all.min.max(s.uids.min), max: all.max.min(s.uids.max) })
}

/// Whether a home is below a home root; `/` holds every home.
pub(super) fn within(home_root: &str, home: &str) -> bool {
    home.strip_prefix(home_root.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

fn parse_keys(lines: &[String]) -> Result<Vec<String>, Failure> {
    if lines.len() > keys::MAX_KEYS {
        return Err(Failure::InvalidArgument(format!("more than {} ssh keys", keys::MAX_KEYS)));
    }
    let mut parsed: Vec<String> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let key = keys::parse(line).map_err(|e| Failure::InvalidArgument(format!("ssh key {}: {e}", at + 1)))?;
        if !parsed.contains(&key) {
            parsed.push(key);
        }
    }
    Ok(parsed)
}

impl From<Account> for wit::Account {
    fn from(account: Account) -> Self {
        let Account { name, uid, gid, comment, home, shell, groups, locked, expired } = account;
        Self { name, uid, gid, comment, home, shell, groups, locked, expired }
    }
}
