//! The parts of a running gateway, put together in the order in which they need each other
//! and stopped in the reverse: orders first, then what runs, then what is owed, then the rest.

#[cfg(test)]
mod lying;
#[cfg(test)]
mod tests;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use viworks_protocol::ecs;

use crate::audit::Audit;
use crate::broker::{self, Client};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch;
use crate::executor::{Executor, ExecutorConfig};
use crate::host::{Host, Reach};
use crate::journal::{Journal, JournalError};
use crate::link::{ConnectError, DELIVERIES, Delivery, INCOMING, Link, Outgoing, Phase, Supply};
use crate::log::Format;
use crate::memory;
use crate::plugins::{Plugins, Registry, Rules, StoreError};
use crate::process::orphans;
use crate::recording::Recordings;
use crate::runtime::{EngineError, Runtime, RuntimeConfig};
use crate::selfupdate::{self, SelfUpdate, Versions, VersionsError};
use crate::status::{ServeError, Server, Vitals};
use crate::telemetry;
use crate::trust::{self, Repository};

/// How often the journal forgets.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// How often expired homes are looked for in the quarantine.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// How long a stopping gateway waits for acknowledgements, and for its own tasks.
const FLUSH: Duration = Duration::from_secs(3);

/// A running gateway.
#[derive(Debug)]
pub struct App {
    executor: Executor,
    outgoing: Outgoing,
    vitals: Vitals,
    audit: Audit,
    drain: Duration,
    /// Orders are not taken any more.
    draining: CancellationToken,
    /// Another version of the program was chosen.
    restart: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the state directory {0} can't be made")]
    StateDir(PathBuf, #[source] std::io::Error),
    #[error("the audit log {0} can't be opened")]
    Audit(PathBuf, #[source] std::io::Error),
    #[error("the log can't be set up")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("another gateway uses this state directory")]
    InUse,
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the plugins' store can't be used")]
    Plugins(#[from] StoreError),
    #[error("the release repository's state can't be used")]
    Repository(#[from] trust::OpenError),
    #[error("the gateway's own versions can't be kept")]
    Versions(#[from] VersionsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Status(#[from] ServeError),
}

/// The state directory, the audit log and the log: what everything else writes to.
///
/// # Errors
/// When one of them can't be had.
pub fn prepare(config: &Config) -> Result<Audit, StartError> {
    let dir = &config.state_dir;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| StartError::StateDir(dir.clone(), e))?;
    let audit = Audit::open(&config.audit_log).map_err(|e| StartError::Audit(config.audit_log.clone(), e))?;
    let (name, version, node) = ("viworks-gateway", env!("CARGO_PKG_VERSION"), Some(config.agent.to_string()));
    let service = ecs::Service { name, version, node };
    let audit = if config.log_format == Some(Format::Ecs) { audit.in_ecs(service.clone()) } else { audit };
    crate::log::init(config.log_format, &service, &audit).map_err(|e| StartError::Log(e.into()))?;
    Ok(audit)
}

impl App {
    /// Make and start every part. Returns as soon as the tasks run: the connection is made
    /// while the plugins load, and the hello waits for them.
    ///
    /// # Errors
    /// When a part can't do without what is missing. A journal that can't be opened is no
    /// such reason: then verbs that change the host are refused.
    pub async fn start(config: Config, audit: Audit) -> Result<Self, StartError> {
        let server = Server::bind(&config.status_socket).await?;

        let clock = Clock::default();
        let reach = config.broker.as_deref().map_or(Reach::Here, |socket| Reach::Brokered(Client::new(socket)));
        let host = Arc::new(Host::reached(&config.providers, reach));
        let journal = journal(&config, &host, &clock).await?;
        let limits = config.policy.limits;
        let runtime = Arc::new(Runtime::new(RuntimeConfig {
            max_concurrency: config.max_concurrency,
            memory_mib: limits.memory_mib,
            instances: limits.instances,
        })?);
        let registry = Arc::<Registry>::default();
        let rules = Rules { release_keys: config.release_keys.clone(), policy: config.policy.clone() };
        let repository = Repository::open(&config.state_dir, config.anchor.clone(), config.repository_grace)?;
        let plugins = Plugins::open(&config.state_dir, rules, repository, runtime, Arc::clone(&registry))?;
        // The tests' program can't be asked to compile.
        if !cfg!(test) {
            plugins.compile_by("/proc/self/exe");
        }
        let (executor, events) = Executor::new(
            ExecutorConfig {
                agent: config.agent.clone(),
                max_concurrency: config.max_concurrency,
                queue: config.queue,
                timeout: config.cmd_timeout,
                undo_hours: config.undo_hours,
            },
            registry,
            Arc::clone(&host),
            journal.clone(),
            clock.clone(),
        );

        if config.recording.enabled {
            match Recordings::open(&config.state_dir, &config.recording) {
                Ok(recordings) => executor.record(recordings),
                Err(error) => tracing::error!(%error, "nothing is recorded: the recordings' directory can't be made"),
            }
        }

        let kept = executor.clone();
        let outgoing = Outgoing::new(journal.clone(), Box::new(move || kept.unacknowledged()));
        let (draining, stop, loaded) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (incoming_to, incoming) = mpsc::channel(INCOMING);
        let shown = plugins.clone();
        let (program, pieces) = SelfUpdate::new();
        let trusted = plugins.repository().clone();
        let versions = program.clone();
        let link = Link::new(
            &config,
            clock.clone(),
            Box::new(move || shown.statuses().into_iter().chain(versions.status()).collect()),
            loaded.clone(),
            outgoing.clone(),
            incoming_to,
            draining.clone(),
        )?;
        let vitals = Vitals::new(
            &config,
            link.state(),
            executor.clone(),
            plugins.clone(),
            journal.clone(),
            audit.clone(),
            clock.clone(),
        );

        let tasks = TaskTracker::new();
        let state = link.state();
        tasks.spawn(link.run(stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(dispatch::events(events, outgoing.clone())));
        let (supply_to, deliveries) = mpsc::channel(DELIVERIES);
        let rules_to = supply_to.clone();
        let heard = dispatch::incoming(incoming, executor.clone(), journal.clone(), outgoing.clone(), supply_to);
        let updates = config.self_update.enabled.then(|| program.clone());
        let supply = Supply::new(plugins.clone(), outgoing.clone()).with_program(updates.clone());
        let said = outgoing.clone();
        let ready = loaded.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(memory::give_back(plugins.worked())));
        // Orders wait until the plugins are there that they mean.
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let statuses = plugins.load().await;
            ready.cancel();
            statuses.into_iter().for_each(|status| said.plugin(status));
            tokio::join!(heard, supply.run(deliveries));
        }));
        let release_keys = config.release_keys.clone();
        let watch = config.policy_file.clone().watch(config.policy.clone(), move |policy| {
            let rules = Rules { release_keys: release_keys.clone(), policy };
            let rules_to = rules_to.clone();
            // The supply lives as long as the program.
            async move { drop(rules_to.send(Delivery::Rules(Box::new(rules))).await) }
        });
        tasks.spawn(stop.clone().run_until_cancelled_owned(watch));
        tasks.spawn(telemetry::run(
            config.telemetry,
            clock.clone(),
            Arc::clone(&host),
            vitals.clone(),
            outgoing.clone(),
            stop.clone(),
        ));
        if let Some(updates) = updates {
            let parts = selfupdate::Parts {
                config: config.self_update.clone(),
                agent: config.agent.to_string(),
                versions: Versions::open(&config.state_dir)?,
                repository: trusted,
                link: state,
                outgoing: outgoing.clone(),
                executor: executor.clone(),
                config_file: config.file.clone(),
            };
            tasks.spawn(stop.clone().run_until_cancelled_owned(updates.run(parts, pieces)));
        }
        tasks.spawn(server.run(vitals.clone(), tasks.clone(), stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(forget(journal, clock)));
        tasks.spawn(stop.clone().run_until_cancelled_owned(sweep(host)));
        tracing::info!(agent = %config.agent, backend = %config.backend.uri(), version = selfupdate::version(), "started");
        tracing::info!(target: "audit", agent = %config.agent, version = selfupdate::version(), "gateway started");
        for fault in broker::check::faults(&config).await.iter() {
            tracing::error!(key = %fault.key, problem = %fault.problem, mend = %fault.mend, "broker");
        }
        config.notes().iter().for_each(|note| tracing::warn!("{note}"));
        let restart = program.restart();
        Ok(Self { executor, outgoing, vitals, audit, drain: config.drain, draining, restart, stop, tasks })
    }

    /// Cancelled when this program is to drain and begin anew, as another version.
    #[must_use]
    pub fn restart(&self) -> CancellationToken {
        self.restart.clone()
    }

    /// Stop: take no orders, let what runs finish, deliver what is owed, say goodbye. Ends in
    /// bounded time.
    pub async fn drain(self) {
        tracing::info!(seconds = self.drain.as_secs(), "draining");
        self.draining.cancel();
        self.executor.drain(self.drain).await;
        self.flush().await;
        self.stop.cancel();
        self.tasks.close();
        if timeout(FLUSH, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time");
        }
        tracing::info!(target: "audit", owed = self.vitals.owed(), "gateway stopped");
        self.audit.flush(FLUSH).await;
    }

    /// Wait for acknowledgements as long as there is a session and some are missing. What
    /// stays owed in the journal goes in the next run.
    async fn flush(&self) {
        let until = Instant::now() + FLUSH;
        let connected = || self.vitals.link().status().phase == Phase::Connected;
        while connected() && (self.vitals.owed() > 0 || !self.outgoing.is_empty()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The journal, recovered; or one that refuses, with the reason in the log.
async fn journal(config: &Config, host: &Arc<Host>, clock: &Clock) -> Result<Journal, StartError> {
    let journal = match Journal::open(&config.state_dir) {
        Ok(journal) => journal,
        Err(JournalError::InUse) => return Err(StartError::InUse),
        Err(error) => {
            tracing::error!(%error, "no journal: verbs that change the host are refused");
            tracing::error!(target: "audit", decision = "refused", %error, "journal");
            return Ok(Journal::unusable(error));
        }
    };
    let state_dir = &config.state_dir;
    if journal.has_unfinished().await.unwrap_or(false) && !matches!(orphans::gone(state_dir).await, Ok(true)) {
        tracing::warn!("programs of an earlier run still run; what they do now can't be taken into account");
    }
    if let Err(error) = orphans::mark(state_dir) {
        tracing::warn!(%error, "programs that outlive this gateway will not be waited for");
    }
    match journal.recover(host, clock.now_ms()).await {
        Ok(recovered) => {
            let (interrupted, unknown) = (recovered.interrupted, recovered.unknown);
            if interrupted + unknown > 0 {
                tracing::warn!(interrupted, unknown, "invocations of an earlier run were not finished");
                tracing::warn!(target: "audit", interrupted, unknown, "recovered");
            }
            Ok(journal)
        }
        Err(error) => {
            tracing::error!(%error, "the journal can't be recovered: verbs that change the host are refused");
            Ok(Journal::unusable(error))
        }
    }
}

/// Remove homes that waited in the quarantine for longer than the host's owner keeps them.
async fn sweep(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        match host.accounts.sweep().await {
            Ok(swept) => swept.iter().for_each(|home| {
                let (account, uid, removed_at) = (&home.account, home.uid, home.removed_at);
                tracing::info!(target: "audit", %account, uid, removed_at, "a home in quarantine expired");
            }),
            Err(error) => tracing::warn!(%error, "the quarantine was not swept"),
        }
    }
}

/// Let the journal forget, a little at a time.
async fn forget(journal: Journal, clock: Clock) {
    let mut ticks = tokio::time::interval(FORGET_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = journal.forget_undo(clock.now_ms()).await {
            tracing::debug!(%error, "nothing to undo was forgotten");
        }
        loop {
            match journal.forget(clock.now_ms()).await {
                Ok(Journal::FORGET_AT_ONCE) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "nothing was forgotten");
                    break;
                }
            }
        }
    }
}
