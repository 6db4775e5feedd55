//! The release repository as this gateway knows it: durable, crash-safe, and never older
//! than it was. Trusts nothing but the root that the host's owner gave; what the backend
//! sends is transport.
//!
//! - [`update`]: one update, file by file
//! - [`view`]: what is known, as a value, and what it means for one release
//! - [`floors`]: what may not go back even if the rest is lost
//!
//! Without a root there is no repository here: signatures alone decide then.

mod floors;
#[cfg(test)]
mod tests;
mod update;
mod view;

pub(crate) use floors::FILE as FLOORS;
pub use floors::{Floors, FloorsError, Highest, Seen};
pub use update::{ATTEMPTS, PATIENCE, Update, UpdateError};
pub use view::{Claim, Past, Standing, TrustError, View};

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use viworks_signing::tuf::{Client, State, TufError};

use crate::vault::{Vault, VaultError};

const FILE: &str = "metadata.json";
/// Roots and roles of a whole update, with room.
const MAX_BYTES: u64 = 32 << 20;

/// The root that the host's owner trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    bytes: Arc<[u8]>,
    id: String,
}

/// The repository. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
pub struct Repository(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    anchor: Option<Anchor>,
    grace: Duration,
    vault: Vault,
    floors: Floors,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    state: State,
    view: Arc<View>,
    /// Why the last update was refused.
    fault: Option<String>,
}

/// For the status endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustHealth {
    pub standing: Standing,
    /// Of root and timestamp, where they are known.
    pub root: Option<u64>,
    pub timestamp: Option<u64>,
    /// The role that expires first, and when: Unix seconds.
    pub expires: Option<(String, u64)>,
    /// How many keys, digests and sequences were taken back.
    pub revoked: usize,
    /// Why the last update was refused.
    pub fault: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Floors(#[from] FloorsError),
    #[error("the trusted root is not one")]
    Anchor(#[source] TufError),
}

/// Why an update was not taken though it was verified.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("root {found} is older than {known}, which was seen here")]
    Rollback { found: u64, known: u64 },
    #[error("it could not be written as JSON")]
    Encode(#[source] TufError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Floors(#[from] FloorsError),
    #[error("the update is not complete")]
    Incomplete,
}

impl KeepError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rollback { .. } => "E_TUF_ROLLBACK",
            _ => "E_TUF_STATE",
        }
    }
}

impl Anchor {
    /// # Errors
    /// When the file is no root that its own keys signed.
    pub fn new(bytes: &[u8]) -> Result<Self, TufError> {
        Client::new(bytes, State::default(), SystemTime::now())?;
        Ok(Self { bytes: bytes.into(), id: hex::encode(Sha256::digest(bytes)) })
    }
}

impl Repository {
    /// Open what is kept under `state_dir`. Without an anchor it is off. What can't be read
    /// is as good as lost: the anchor and the floors remain.
    ///
    /// # Errors
    /// When the directories are not safe to use, or the floors are lost in both places.
    pub fn open(state_dir: &Path, anchor: Option<Anchor>, grace: Duration) -> Result<Self, OpenError> {
        let vault = Vault::open(&state_dir.join("trust"))?;
        let floors = Floors::open(state_dir)?;
        let state = match vault.read(FILE, MAX_BYTES).map(|bytes| bytes.map(|bytes| State::decode(&bytes))) {
            Ok(None) => State::default(),
            Ok(Some(Ok(state))) => state,
            Ok(Some(Err(error))) => lost(&error),
            Err(error) => lost(&error),
        };
        let inner = Inner { anchor, grace, vault, floors, current: Mutex::default() };
        let repository = Self(Arc::new(inner));
        repository.restore(state)?;
        Ok(repository)
    }

    fn restore(&self, state: State) -> Result<(), OpenError> {
        let Some(anchor) = &self.0.anchor else { return Ok(()) };
        // The anchor may be another than before: it is what counts.
        Client::new(&anchor.bytes, state.clone(), SystemTime::now()).map_err(OpenError::Anchor)?;
        let seen = self.0.floors.repository(&anchor.id);
        let trusted = match state.trusted(&anchor.bytes) {
            Ok(trusted) if trusted.versions().root >= seen.root => Some(trusted),
            Ok(_) => None,
            Err(error) => {
                tracing::info!(%error, "no repository metadata is kept yet");
                None
            }
        };
        let mut revocations = seen.revocations;
        revocations.merge(state.revocations());
        let floor = Some(state.floor());
        let view = View { id: Some(anchor.id.clone()), trusted, revocations, floor, grace: self.0.grace };
        *self.lock() = Current { state, view: Arc::new(view), fault: None };
        Ok(())
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.lock().view.clone()
    }

    #[must_use]
    pub fn floors(&self) -> &Floors {
        &self.0.floors
    }

    /// Whether it is trusted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.anchor.is_some()
    }

    /// Begin an update, if the backend's timestamp is another than the one that is known, or
    /// what is known has expired.
    #[must_use]
    pub fn update(&self, timestamp: u64, system: SystemTime) -> Option<Update> {
        let anchor = self.0.anchor.as_ref()?;
        let (state, view) = {
            let current = self.lock();
            (current.state.clone(), current.view.clone())
        };
        let known = view.trusted().map(|trusted| trusted.versions().timestamp);
        if known == Some(timestamp) && view.standing(system) == Standing::Fresh {
            return None;
        }
        match Client::new(&anchor.bytes, state, view.time(system)) {
            Ok(client) => Some(Update::new(client)),
            Err(error) => {
                self.fault(error.code(), &error);
                None
            }
        }
    }

    /// Keep what an update verified, durably, and only then go by it. Whether what is known
    /// changed.
    ///
    /// # Errors
    /// When it is older than what was seen, or can't be made durable: nothing changed then.
    pub fn keep(&self, update: &Update) -> Result<bool, KeepError> {
        let (Some(anchor), Some(trusted)) = (&self.0.anchor, update.client().trusted()) else {
            return Err(KeepError::Incomplete);
        };
        let (found, known) = (trusted.versions().root, self.0.floors.repository(&anchor.id).root);
        if found < known {
            return Err(KeepError::Rollback { found, known });
        }
        let state = update.client().state().clone();
        self.0.vault.write(FILE, &state.encode().map_err(KeepError::Encode)?)?;
        let mut revocations = self.lock().view.revocations.clone();
        revocations.merge(trusted.revocations());
        let seen = Seen { root: found, revocations: revocations.clone() };
        self.0.floors.raise_repository(&anchor.id, seen)?;
        let view = View {
            id: Some(anchor.id.clone()),
            trusted: Some(trusted.clone()),
            revocations,
            floor: Some(state.floor()),
            grace: self.0.grace,
        };
        let mut current = self.lock();
        let changed =
            current.view.trusted().map(|trusted| trusted.versions().clone()) != Some(trusted.versions().clone());
        *current = Current { state, view: Arc::new(view), fault: None };
        Ok(changed)
    }

    /// An update was refused. What it verified before that (a newer root, a higher
    /// timestamp) is kept all the same, so that it can't be taken back.
    pub fn refused(&self, update: &Update, error: &UpdateError) {
        let state = update.client().state().clone();
        if let Ok(bytes) = state.encode() {
            match self.0.vault.write(FILE, &bytes) {
                Ok(()) => self.lock().state = state,
                Err(error) => tracing::error!(%error, "the repository's state could not be kept"),
            }
        }
        self.fault(error.code(), error);
    }

    /// What else went wrong with an update.
    pub fn fault(&self, code: &str, error: &dyn std::error::Error) {
        let fault = format!("{code}: {}", crate::link::chain(error));
        tracing::warn!(target: "audit", decision = "refused", %fault, "repository");
        self.lock().fault = Some(fault);
    }

    #[must_use]
    pub fn health(&self, system: SystemTime) -> TrustHealth {
        let current = self.lock();
        let view = &current.view;
        let trusted = view.trusted();
        let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let revoked = &view.revocations;
        TrustHealth {
            standing: view.standing(system),
            root: trusted.map(|trusted| trusted.versions().root),
            timestamp: trusted.map(|trusted| trusted.versions().timestamp),
            expires: trusted.map(|trusted| (trusted.expires().0.to_owned(), unix(trusted.expires().1))),
            revoked: revoked.keys().count() + revoked.digests().count() + revoked.floors().count(),
            fault: current.fault.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deleted or damaged, it begins anew from the anchor, above the floors.
fn lost(error: &dyn std::error::Error) -> State {
    tracing::error!(target: "audit", error = %crate::link::chain(error), "the repository's state is lost; beginning anew");
    State::default()
}
