//! The `accounts` capability: login accounts of the host, or of a directory that looks like
//! one. Refuses root, system accounts and every name that would carry rights of its own.
//!
//! The map: [`guest`] is what plugins call, and checks scopes → [`change`] is what can
//! change, [`diff`] how people read it → [`foresee`] completes it from the host, over the
//! [`overlay`] of a plan → [`apply`] does it, one at a time → [`tools`] runs useradd and its kin,
//! [`home`] and [`quarantine`] work on home directories by descriptor ([`dir`]),
//! [`database`] reads passwd, group and shadow. [`rules`] and [`keys`] say what a name,
//! a hash and a key are; [`judge`] asks a grant of a whole change, where nobody else did; [`busy`] who is in use; [`prefix`] makes an empty root ready.

mod apply;
mod busy;
mod change;
mod database;
mod diff;
mod dir;
mod foresee;
mod guest;
mod home;
mod judge;
mod keys;
mod overlay;
mod prefix;
mod quarantine;
mod rules;
#[cfg(test)]
mod tests;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use change::{Change, Home, Lock, LockState, NewAccount, Record};
pub use quarantine::Swept;

use crate::broker::wire::Request;
use crate::capabilities::wit::viworks::gateway::accounts as wit;
use crate::effects::Effect;
use crate::failure::Failure;
use crate::host::Reach;
use database::{Database, LockLine};
use overlay::Overlay;
use tools::Tools;

/// `[providers.accounts]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A directory that stands for the host's `/`: for demonstrations, tests and images.
    /// Missing account files are made there. The real host when absent.
    pub root: Option<PathBuf>,
    /// Where the homes of removed accounts go; on the file system of the homes.
    /// `/var/lib/viworks-gateway/quarantine` in the root when absent.
    pub quarantine: Option<PathBuf>,
    /// How long homes stay there; 0 keeps them until somebody removes them.
    pub quarantine_days: u32,
    /// A directory whose files new homes begin with, for example `/etc/skel`.
    pub skeleton: Option<PathBuf>,
    /// Programs that are not in their usual place.
    pub useradd: Option<PathBuf>,
    pub usermod: Option<PathBuf>,
    pub userdel: Option<PathBuf>,
    pub groupadd: Option<PathBuf>,
    pub chpasswd: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: None,
            quarantine: None,
            quarantine_days: 30,
            skeleton: None,
            useradd: None,
            usermod: None,
            userdel: None,
            groupadd: None,
            chpasswd: None,
        }
    }
}

/// Homes that one sweep removes; the next takes the next.
const SWEPT_AT_ONCE: usize = 100;

/// Reads accounts at any time and changes them one at a time.
#[derive(Debug, Clone)]
pub struct Provider {
    site: Arc<Site>,
    /// useradd and its kin fail when they run side by side.
    changing: Arc<tokio::sync::Mutex<()>>,
    reach: Reach,
}

/// Where everything is.
#[derive(Debug)]
struct Site {
    root: Option<PathBuf>,
    quarantine: PathBuf,
    quarantine_days: u32,
    skeleton: Option<PathBuf>,
    tools: Tools,
}

impl Site {
    /// The directory that is `/` to the accounts.
    fn base(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Who files of this account belong to on disk. An unprivileged gateway can't give
    /// files away; it only ever works in a root directory of its own.
    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        let (euid, egid) = (rustix::process::geteuid(), rustix::process::getegid());
        if self.root.is_some() && !euid.is_root() { (euid.as_raw(), egid.as_raw()) } else { (uid, gid) }
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &Config, reach: Reach) -> Self {
        let base = config.root.as_deref().unwrap_or(Path::new("/"));
        let site = Site {
            root: config.root.clone(),
            quarantine: config.quarantine.clone().unwrap_or_else(|| base.join("var/lib/viworks-gateway/quarantine")),
            quarantine_days: config.quarantine_days,
            skeleton: config.skeleton.clone(),
            tools: Tools::new(config),
        };
        Self { site: Arc::new(site), changing: Arc::default(), reach }
    }

    /// All accounts and groups as they are now.
    ///
    /// # Errors
    /// `unavailable` if an account file can't be read.
    async fn database(&self) -> Result<Database, Failure> {
        if let Some(broker) = self.reach.broker() {
            // The names are everybody's to read; of the passwords only whether they are locked.
            let locks: Vec<LockLine> = broker.ask(Request::Locks {}).await?;
            return self.blocking(move |site| Database::public(site.base(), locks)).await;
        }
        self.blocking(|site| {
            if let Some(root) = &site.root {
                prefix::prepare(root)?;
            }
            Database::read(site.base())
        })
        .await
    }

    /// All accounts and groups as a plan so far leaves them.
    async fn planned(&self, planned: &[Effect]) -> Result<Database, Failure> {
        let mut database = self.database().await?;
        Overlay::of(planned).replay(&mut database);
        Ok(database)
    }

    /// Remove homes that waited in the quarantine for longer than they may.
    ///
    /// # Errors
    /// When the quarantine can't be read.
    pub async fn sweep(&self) -> Result<Vec<Swept>, Failure> {
        if let Some(broker) = self.reach.broker() {
            return broker.ask(Request::Sweep {}).await;
        }
        let days = self.site.quarantine_days;
        if days == 0 {
            return Ok(Vec::new());
        }
        let oldest = time::OffsetDateTime::now_utc().unix_timestamp() - i64::from(days) * 86_400;
        let _one_at_a_time = self.changing.lock().await;
        self.blocking(move |site| quarantine::sweep(site, oldest, SWEPT_AT_ONCE)).await
    }

    /// Work on files, away from the threads that serve everything else.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Site) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let site = Arc::clone(&self.site);
        tokio::task::spawn_blocking(move || work(&site))
            .await
            .map_err(|e| Failure::Failed(format!("work on accounts ended early: {e}")))?
    }

    pub(crate) async fn apply(&self, change: &Change) -> Result<Value, Failure> {
        let (provider, change) = (self.clone(), change.clone());
        // A task of its own: an invocation that is cancelled lets go of this future, and an
        // account must not stay half made. It ends by the tools' own deadlines.
        let applying = tokio::spawn(async move {
            let _one_at_a_time = provider.changing.lock().await;
            apply::apply(&provider, &change).await
        });
        applying.await.map_err(|e| Failure::Failed(format!("work on accounts ended early: {e}")))?
    }
}
