//! While the gateway runs: confirm the version that was begun, look what the repository offers,
//! fetch it piece by piece into a file, check it, choose it, and ask for a new start when the
//! owner's window is open and nothing runs. One program at a time, bounded in bytes and waits;
//! what fails is refused for good, except for silence.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use semver::Version;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use viworks_protocol::chunk::{Chunk, Part};
use viworks_protocol::frame::{PluginState, PluginStatus};

use super::choice::{Choice, Entry};
use super::versions::digest;
use super::{Config, PROGRAM, Versions, VersionsError, candidate, launched, version};
use crate::config::process_env;
use crate::executor::Executor;
use crate::link::{LinkState, Outgoing, Phase};
use crate::process::Program;
use crate::trust::Repository;

/// Pieces that wait to be written; the rest is dropped and asked for again.
pub const CHUNKS: usize = 256;
/// How often the repository, the window and a session are looked at without news.
const LOOK: Duration = Duration::from_secs(30);
/// How long a piece may take to come, and how often it is asked for again.
const PATIENCE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 6;
/// How long a new version may take to check itself.
const CHECK: Duration = Duration::from_secs(30);
/// Of what is told of a refusal, in characters.
const MAX_DETAIL: usize = 300;
/// Between two looks whether something runs, before the new start.
const IDLE: Duration = Duration::from_millis(500);

/// The handle of the task. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
pub struct SelfUpdate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    news: Notify,
    chunks: mpsc::Sender<Chunk>,
    /// Cancelled when the program has to begin anew.
    restart: CancellationToken,
    /// Pieces of anything are dropped while no program is fetched.
    fetching: AtomicBool,
    status: Mutex<Option<PluginStatus>>,
}

/// What the task works with.
pub struct Parts {
    pub config: Config,
    pub agent: String,
    pub versions: Versions,
    pub repository: Repository,
    pub link: Arc<LinkState>,
    pub outgoing: Outgoing,
    pub executor: Executor,
    /// Of the configuration, so that a new version checks the same one.
    pub config_file: Option<std::path::PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Versions(#[from] VersionsError),
    #[error("no piece of it came")]
    Silence,
    #[error("a piece could not be written")]
    Write(#[from] std::io::Error),
    #[error("it does not pass its own check: {0}")]
    Check(String),
    #[error("interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl SelfUpdate {
    /// The handle, and what the task takes from it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Chunk>) {
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let inner = Inner {
            news: Notify::new(),
            chunks,
            restart: CancellationToken::new(),
            fetching: AtomicBool::new(false),
            status: Mutex::default(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// The repository may say something new.
    pub fn look(&self) {
        self.0.news.notify_one();
    }

    /// A piece that is of no plugin that is fetched now.
    pub fn piece(&self, chunk: &Chunk) {
        if self.0.fetching.load(Ordering::Relaxed) {
            // Where it is full, it is asked for again.
            let _ = self.0.chunks.try_send(chunk.clone());
        }
    }

    /// Cancelled when the gateway is to drain and begin anew.
    #[must_use]
    pub fn restart(&self) -> CancellationToken {
        self.0.restart.clone()
    }

    /// The version that runs, and the last one that was refused: for every hello. None where
    /// the gateway does not update itself.
    #[must_use]
    pub fn status(&self) -> Option<PluginStatus> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serve until dropped.
    pub async fn run(self, parts: Parts, mut chunks: mpsc::Receiver<Chunk>) {
        let Ok(running) = Version::parse(version()) else { return };
        let digest = match self.begin(&parts).await {
            Ok(digest) => digest,
            Err(error) => {
                tracing::error!(%error, "the gateway's versions can't be kept: it does not update itself");
                return;
            }
        };
        loop {
            let news = timeout(LOOK, self.0.news.notified());
            let chosen = self.step(&parts, &running, &digest, &mut chunks).await;
            match chosen {
                Ok(true) => return self.when_idle(&parts).await,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %crate::link::chain(&error), "the gateway's program was not updated");
                }
            }
            drop(news.await);
        }
    }

    /// Confirm what was begun, and tell what is known. The digest of what runs.
    async fn begin(&self, parts: &Parts) -> Result<String, UpdateError> {
        let digest = match launched() {
            Some((_, digest)) => digest,
            None => tokio::task::spawn_blocking(own_digest).await??,
        };
        let mut choice = parts.versions.choice()?;
        self.tell(parts, &choice, &digest);
        let mut link = parts.link.watch();
        // The end of the sender is the program's end.
        if link.wait_for(|status| status.phase == Phase::Connected).await.is_err() {
            return std::future::pending().await;
        }
        let current = choice.current.as_ref().is_some_and(|entry| entry.digest == digest);
        if current && !choice.confirmed {
            choice.confirm();
            parts.versions.keep(&choice)?;
            tracing::info!(version = version(), "this version has a session: it stays");
            tracing::info!(target: "audit", version = version(), %digest, "gateway updated");
        }
        parts.versions.sweep(&choice, None);
        Ok(digest)
    }

    /// Keep what is told at every hello, and tell it now.
    fn tell(&self, parts: &Parts, choice: &Choice, digest: &str) {
        let refused = choice.refused.last().map(|refused| format!("refused {}: {}", refused.version, refused.why));
        let status = PluginStatus {
            plugin: PROGRAM.to_owned(),
            version: version().to_owned(),
            digest: digest.to_owned(),
            state: PluginState::Active,
            detail: refused.map(|text| text.chars().take(MAX_DETAIL).collect()),
            shadow: false,
        };
        *self.0.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
        parts.outgoing.plugin(status);
    }

    /// Whether another version was chosen.
    async fn step(
        &self,
        parts: &Parts,
        running: &Version,
        digest: &str,
        chunks: &mut mpsc::Receiver<Chunk>,
    ) -> Result<bool, UpdateError> {
        let mut choice = parts.versions.choice()?;
        let view = parts.repository.view();
        let now = SystemTime::now();
        let fresh = view.trusted().is_some_and(|trusted| trusted.fresh(view.time(now)).is_ok());
        if !fresh || parts.config.window.is_some_and(|window| !window.is_open(now)) {
            return Ok(false);
        }
        let found = candidate::candidate(&view, &parts.agent, &parts.config.channel, running, &choice);
        let Some(entry) = found else { return Ok(false) };
        parts.outgoing.plugin(PluginStatus {
            plugin: PROGRAM.to_owned(),
            version: entry.version.to_string(),
            digest: entry.digest.clone(),
            state: PluginState::Fetching,
            detail: None,
            shadow: false,
        });
        tracing::info!(version = %entry.version, digest = %entry.digest, "fetching a newer version of the gateway");
        self.0.fetching.store(true, Ordering::Relaxed);
        let fetched = parts.fetch(&entry, chunks).await;
        self.0.fetching.store(false, Ordering::Relaxed);
        let checked = match fetched {
            Ok(()) => parts.check(&entry).await,
            failed => failed,
        };
        match checked {
            Ok(()) => {
                choice.select(entry.clone());
                parts.versions.keep(&choice)?;
                tracing::info!(target: "audit", version = %entry.version, digest = %entry.digest, "gateway version chosen");
                Ok(true)
            }
            Err(UpdateError::Check(why)) => {
                let why = format!("it does not pass its own check: {why}");
                choice.forbid(entry.version.clone(), entry.digest.clone(), &why);
                parts.versions.keep(&choice)?;
                parts.versions.sweep(&choice, None);
                self.tell(parts, &choice, digest);
                tracing::warn!(target: "audit", decision = "refused", version = %entry.version, %why, "gateway version");
                Ok(false)
            }
            Err(error) => {
                self.tell(parts, &choice, digest);
                Err(error)
            }
        }
    }

    /// Ask for the new start once nothing runs; the start itself lets what came since finish.
    async fn when_idle(&self, parts: &Parts) {
        let metrics = parts.executor.metrics();
        while metrics.running.load(Ordering::Relaxed) + metrics.queued.load(Ordering::Relaxed) > 0 {
            sleep(IDLE).await;
        }
        self.0.restart.cancel();
    }
}

impl Parts {
    /// The whole program into its file, from where an earlier fetch ended.
    async fn fetch(&self, entry: &Entry, chunks: &mut mpsc::Receiver<Chunk>) -> Result<(), UpdateError> {
        if self.versions.verify(entry).is_ok() {
            return Ok(());
        }
        let (mut file, mut held) = self.versions.part(entry)?;
        let mut failures = 0;
        while held < entry.length {
            failures += 1;
            if failures > ATTEMPTS {
                return Err(UpdateError::Silence);
            }
            // Too large for a frame's number it is not: it was bounded before.
            self.outgoing.fetch(entry.digest.clone(), Part::Component, u32::try_from(held).unwrap_or(u32::MAX));
            while let Ok(Some(chunk)) = timeout(PATIENCE, chunks.recv()).await {
                let fits = hex::encode(chunk.digest) == entry.digest && u64::from(chunk.offset) == held;
                let left = entry.length - held;
                if !fits || chunk.bytes.is_empty() || chunk.bytes.len() as u64 > left {
                    continue;
                }
                // Into the page cache: shorter than what a switch of threads costs.
                file.write_all(&chunk.bytes)?;
                held += chunk.bytes.len() as u64;
                failures = 0;
                if held == entry.length {
                    break;
                }
            }
        }
        drop(file);
        // Reads all of it once more; other tasks go on on the other threads.
        Ok(tokio::task::block_in_place(|| self.versions.complete(entry))?)
    }

    /// Let it say its version and check this configuration, as it would at its start.
    async fn check(&self, entry: &Entry) -> Result<(), UpdateError> {
        let program = self.versions.program(&entry.digest);
        let mut check = Program::new(&program).arg("check");
        if let Some(config) = &self.config_file {
            check = check.arg("--config").arg(config);
        }
        check = process_env().into_iter().fold(check, |check, (name, value)| check.env(name, value));
        for run in [Program::new(&program).arg("--version"), check] {
            let output = run.deadline(CHECK).run().await.map_err(|e| UpdateError::Check(crate::link::chain(&e)))?;
            if output.code() != 0 {
                let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
                let why = if said.is_empty() { output.complaint() } else { said };
                return Err(UpdateError::Check(format!("ended with {}: {why}", output.code())));
            }
        }
        Ok(())
    }
}

fn own_digest() -> std::io::Result<String> {
    digest(std::fs::File::open("/proc/self/exe")?, candidate::MAX_BYTES * 4)
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}
