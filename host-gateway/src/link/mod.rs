//! The link to the backend: always dialled from here, so that a managed host opens no
//! port. Connects, holds a session, connects again; refuses every peer but the pinned one.
//!
//! [`connect`] TLS and pin · [`session`] one session · [`incoming`] what the backend may say,
//! and the warrant · [`outgoing`] what waits to be said · [`supply`] plugins, piece by piece, after
//! the repository's [`metadata`] ·
//! [`backoff`] the pause between.

mod backoff;
mod connect;
mod incoming;
mod metadata;
mod outgoing;
mod progress;
mod rates;
mod session;
mod state;
mod supply;
#[cfg(test)]
pub(crate) mod tests;

pub use connect::{ConnectError, Connector};
pub use incoming::Incoming;
pub use outgoing::{Outgoing, Unacknowledged};
pub use state::{LinkState, LinkStatus, Phase};
pub use supply::{DELIVERIES, Delivery, Supply};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use viworks_protocol::frame::{Hello, PluginStatus};

use crate::clock::Clock;
use crate::config::Config;
use backoff::Backoff;
use incoming::Judge;
use session::{Ended, Why};

/// What was heard and not yet handled; then the link waits, and so does the backend.
pub const INCOMING: usize = 64;

/// How long the hello waits for the plugins.
const LOADING: Duration = Duration::from_secs(3);

/// Tells the plugins as they are when a session begins.
pub type Plugins = Box<dyn Fn() -> Vec<PluginStatus> + Send + Sync>;

/// The link's one owner; [`Link::run`] is its task.
pub struct Link {
    connector: Connector,
    /// All of the hello but the plugins.
    hello: Hello,
    plugins: Plugins,
    /// The plugins are there.
    loaded: CancellationToken,
    judge: Judge,
    clock: Clock,
    outgoing: Outgoing,
    incoming: mpsc::Sender<Incoming>,
    state: Arc<LinkState>,
    draining: CancellationToken,
    backoff: Backoff,
}

impl Link {
    /// The hello waits for `loaded`, though not long; `draining` stops orders, and nothing
    /// else.
    ///
    /// # Errors
    /// When the credentials can't be used, which a checked configuration rules out.
    pub fn new(
        config: &Config,
        clock: Clock,
        plugins: Plugins,
        loaded: CancellationToken,
        outgoing: Outgoing,
        incoming: mpsc::Sender<Incoming>,
        draining: CancellationToken,
    ) -> Result<Self, ConnectError> {
        let hello = Hello {
            receipt_key: outgoing.receipt_key(),
            protocol: viworks_protocol::VERSION,
            agent: config.agent.clone(),
            version: crate::selfupdate::version().to_owned(),
            boot: format!("{:032x}", rand::random::<u128>()),
            site: config.site.clone(),
            labels: config.labels.clone(),
            max_concurrency: config.max_concurrency,
            plugins: Vec::new(),
        };
        let judge = Judge { agent: config.agent.clone(), keys: config.warrant_keys.clone(), clock: clock.clone() };
        Ok(Self {
            connector: Connector::new(&config.backend, &config.credentials)?,
            hello,
            plugins,
            loaded,
            judge,
            clock,
            outgoing,
            incoming,
            state: Arc::default(),
            draining,
            backoff: Backoff::default(),
        })
    }

    /// For the status endpoint and telemetry.
    #[must_use]
    pub fn state(&self) -> Arc<LinkState> {
        Arc::clone(&self.state)
    }

    /// Connect and connect again until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut said = None;
        loop {
            self.state.enter(Phase::Connecting, None, self.clock.now_ms());
            let (lasted, asked, error) = match self.attempt(&stop).await {
                Attempt::Stopped => break,
                Attempt::Failed(error) => {
                    let (asked, error) = (error.retry_after(), chain(&error));
                    // Each cause once: the next attempts would say the same.
                    if said.as_ref() != Some(&error) {
                        tracing::warn!(%error, "not connected");
                        tracing::warn!(target: "audit", decision = "refused", %error, "backend");
                    }
                    (Duration::ZERO, asked, error)
                }
                Attempt::Ended(Ended { lasted, why }) => {
                    let asked = match &why {
                        Why::Goodbye { retry_after, .. } => Some(*retry_after),
                        _ => None,
                    };
                    (lasted, asked, chain(&why))
                }
            };
            said = Some(error.clone());
            self.state.enter(Phase::Waiting, Some(error), self.clock.now_ms());
            let pause = self.backoff.next(lasted, asked, rand::random());
            tracing::debug!(milliseconds = pause.as_millis(), "waiting before the next attempt");
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        self.state.enter(Phase::Stopped, None, self.clock.now_ms());
    }

    async fn attempt(&self, stop: &CancellationToken) -> Attempt {
        let socket = match stop.run_until_cancelled(self.connector.connect()).await {
            None => return Attempt::Stopped,
            Some(Err(error)) => return Attempt::Failed(error),
            Some(Ok(socket)) => socket,
        };
        let ended = session::run(socket, self, stop).await;
        let (why, refused) = (chain(&ended.why), ended.why.is_refusal());
        if refused {
            self.state.frames_refused.fetch_add(1, Ordering::Relaxed);
        }
        let decision = if refused { "refused" } else { "ended" };
        tracing::info!(target: "audit", decision, %why, seconds = ended.lasted.as_secs(), "session down");
        tracing::info!(%why, seconds = ended.lasted.as_secs(), "disconnected");
        match ended.why {
            Why::Stopped => Attempt::Stopped,
            _ => Attempt::Ended(ended),
        }
    }

    /// With the plugins that are there, for which it waits a little: those that come later
    /// are told by frames of their own.
    async fn hello(&self) -> Hello {
        let _ = tokio::time::timeout(LOADING, self.loaded.cancelled()).await;
        Hello { plugins: (self.plugins)(), ..self.hello.clone() }
    }
}

enum Attempt {
    Stopped,
    Failed(ConnectError),
    Ended(Ended),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// An error and its sources, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
