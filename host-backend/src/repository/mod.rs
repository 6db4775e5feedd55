//! The release repository as this backend knows it: verified, mirrored durably, and served
//! to gateways from shared text. Gateways verify everything again; what this backend
//! verifies is told early, and keeps a broken repository from replacing a good one.
//!
//! - [`source`]: a directory or an upload; [`container`]: the file that is uploaded
//! - [`update`]: one update: verify, mirror, publish, revoke
//! - [`releases`]: publication with and without a repository
//! - [`program`]: the gateways' own program, for those that update themselves
//! - [`oci`]: bundles from OCI registries

pub mod container;
pub mod oci;
mod program;
pub mod releases;
pub mod source;
#[cfg(test)]
mod tests;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use viworks_protocol::frame::BackendFrame;
use viworks_signing::tuf::{State, Trusted, TufError};

use crate::background::every;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::hub;
use crate::metrics::Metrics;
use crate::rollouts::Rollouts;
use crate::store::{Store, StoreError};

pub use releases::Releases;
pub use source::Source;
pub use update::Report;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The client's state among the mirrored files; no file of a repository has such a name.
const STATE: &str = "/state";

/// What the repository works with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub catalog: Catalog,
    pub rollouts: Rollouts,
    pub store: Store,
    pub clock: Clock,
    pub cluster: Cluster,
    pub metrics: Metrics,
    /// The `root.json` that this backend's owner trusts.
    pub root: Vec<u8>,
    /// Watched, if there is one; otherwise only uploads bring news.
    pub directory: Option<PathBuf>,
    /// Whether new releases become active at once, or wait for rollouts.
    pub activates: bool,
}

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// One update at a time; holds what the next begins with.
    state: Mutex<State>,
    current: watch::Sender<Arc<Current>>,
    program: program::Kept,
}

/// What is served at a moment.
#[derive(Debug, Default)]
pub struct Current {
    /// By name: the whole `metadata` frame.
    frames: BTreeMap<String, Utf8Bytes>,
    /// The `repository` frame; none before the first good update.
    news: Option<Utf8Bytes>,
    pub trusted: Option<Trusted>,
    /// Names of the files of this update, timestamp included.
    names: BTreeSet<String>,
    /// Why the last update was refused: its code and text.
    pub fault: Option<(&'static str, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("the repository's metadata is refused")]
    Tuf(#[from] TufError),
    #[error("the mirror can't be read or written")]
    Store(#[from] StoreError),
    #[error("{name} can't be read")]
    Read { name: String, source: std::io::Error },
    #[error("the update was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl Repository {
    /// Restore what was mirrored. A trusted root that can't be used is an error; a mirror
    /// that can't be used any more is one that the next update fills anew.
    ///
    /// # Errors
    /// When the root is none, or the store can't be read.
    pub async fn open(parts: Parts) -> Result<Self, RepositoryError> {
        // Said at the start rather than at the first update.
        viworks_signing::tuf::Client::new(&parts.root, State::default(), UNIX_EPOCH)?;
        let (state, current) = mirrored(&parts).await?;
        let current = watch::Sender::new(Arc::new(current));
        let inner = Inner { parts, state: Mutex::new(state), current, program: program::Kept::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.inner.current.borrow().clone()
    }

    /// What another instance mirrored is served from now on.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) async fn reread(&self) -> Result<(), RepositoryError> {
        let mut state = self.inner.state.lock().await;
        self.renew(&mut state).await
    }

    async fn renew(&self, state: &mut State) -> Result<(), RepositoryError> {
        let (read, current) = mirrored(&self.inner.parts).await?;
        *state = read;
        let before = self.current();
        let version = |of: &Current| of.trusted.as_ref().map(|trusted| trusted.versions().timestamp);
        if version(&before) != version(&current) || before.names != current.names {
            self.inner.current.send_replace(Arc::new(current));
        }
        Ok(())
    }

    /// Told of every update.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Current>> {
        self.inner.current.subscribe()
    }

    /// Look at the directory until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(directory) = self.inner.parts.directory.clone() else { return };
        let source = Source::Directory(directory);
        let mut seen = None;
        let looks = std::sync::Mutex::new(&mut seen);
        every(LOOK, &stop, || {
            let now = source.stamp();
            let mut seen = looks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let news = now.is_some() && **seen != now;
            **seen = now;
            let (this, source) = (self.clone(), source.clone());
            async move {
                // One of the instances that have a directory; another one looks when it takes over.
                if news && this.inner.parts.cluster.leads("repository").await {
                    // What came of it is logged, counted and shown on the API.
                    drop(this.update(source, "repository").await);
                }
            }
        })
        .await;
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.inner.parts.clock.now_ms())
    }
}

async fn mirrored(parts: &Parts) -> Result<(State, Current), RepositoryError> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut state = State::default();
    for (name, bytes) in parts.store.mirrored().await? {
        if name == STATE {
            state = State::decode(&bytes)?;
        } else if let Ok(text) = String::from_utf8(bytes.to_vec()) {
            files.insert(name, text);
        }
    }
    let trusted = state.trusted(&parts.root).ok();
    let current = Current::of(&files, trusted, None);
    Ok((state, current))
}

impl Current {
    fn of(files: &BTreeMap<String, String>, trusted: Option<Trusted>, fault: Option<(&'static str, String)>) -> Self {
        let frame = |(name, text): (&String, &String)| {
            let frame = BackendFrame::Metadata { name: name.clone(), text: Some(text.clone()) };
            (name.clone(), hub::text(&frame))
        };
        let news = trusted.as_ref().map(|trusted| {
            let timestamp = trusted.versions().timestamp;
            hub::text(&BackendFrame::Repository { timestamp })
        });
        let names = trusted.as_ref().map(|trusted| names(trusted, files)).unwrap_or_default();
        Self { frames: files.iter().map(frame).collect(), news, trusted, names, fault }
    }

    /// The `metadata` frame for this name: of a file that is mirrored, or one that says
    /// that there is none.
    #[must_use]
    pub fn frame(&self, name: &str) -> Option<Utf8Bytes> {
        self.frames.get(name).cloned()
    }

    /// The frame that tells gateways to look; none where there is nothing yet.
    #[must_use]
    pub fn news(&self) -> Option<Utf8Bytes> {
        self.news.clone()
    }
}

/// The files that a gateway fetches for this update.
fn names(trusted: &Trusted, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let versions = trusted.versions();
    let mut names = BTreeSet::from(["timestamp.json".to_owned(), format!("{}.snapshot.json", versions.snapshot)]);
    names.extend(versions.roles.iter().map(|(role, version)| format!("{version}.{role}.json")));
    if let Some(list) = trusted.target(viworks_signing::tuf::REVOCATIONS) {
        names.insert(format!("{}.{}", list.sha256, viworks_signing::tuf::REVOCATIONS));
    }
    names.retain(|name| files.contains_key(name));
    names
}
