//! Everything put together: built in order, started, and stopped in the opposite order
//! within a deadline.

use serde_json::json;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::background::Background;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cluster::{self, Cluster};
use crate::config::Config;
use crate::dispatch::Engine;
use crate::edge::{Admission, Limits};
use crate::health::{Kept, Readiness};
use crate::hub::{self, Files, Hub, Port, Tls};
use crate::metrics::Metrics;
use crate::repository::oci::Registries;
use crate::repository::{self, Releases, Repository};
use crate::rollouts::{self, Observer, Rollouts};
use crate::spans::{Exporter, Tracer};
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::{api, backup, chores, keys};

/// An address that is in use is tried so long, so often.
const BIND_WITHIN: Duration = Duration::from_secs(5);
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// What the API works with; clones share everything.
#[derive(Debug, Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub store: Store,
    pub catalog: Catalog,
    pub hub: Hub,
    pub cluster: Cluster,
    pub engine: Engine,
    pub rollouts: Rollouts,
    pub releases: Releases,
    pub telemetry: Telemetry,
    pub metrics: Metrics,
    pub background: Background,
    pub ready: Readiness,
    pub tracer: Tracer,
    exporter: Option<Exporter>,
    /// Of the agents' port, once it was started.
    pub(crate) admission: Arc<OnceLock<Admission>>,
    pub(crate) kept_health: Kept,
    /// Of the agents' port, once it was started.
    pub(crate) tls: Arc<OnceLock<Arc<Tls>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the store")]
    Store(#[source] crate::store::StoreError),
    #[error("the data directory")]
    Held(#[source] crate::backup::BackupError),
    #[error("the plugin catalogue")]
    Catalog(#[source] crate::catalog::CatalogError),
    #[error("{path} can't be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the release repository")]
    Repository(#[source] crate::repository::RepositoryError),
    #[error("the other instances")]
    Cluster(#[source] cluster::ClusterError),
    #[error("keys")]
    Key(#[source] keys::KeyError),
    #[error("TLS of the agents' port")]
    Tls(#[source] crate::hub::TlsError),
    #[error("{what} {address} can't be listened on")]
    Listen { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("signals can't be received")]
    Signal(#[source] std::io::Error),
    #[error("{path} can't be written")]
    Write { path: PathBuf, source: std::io::Error },
}

impl AppState {
    /// Open and build everything that needs no socket, and start the engine's tasks.
    ///
    /// # Errors
    /// The first part that can't be built.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        make_data_dir(&config)?;
        let key = keys::secret_or_new(&config.warrant_key()).map_err(AppError::Key)?;
        let trusted = keys::release_keys(&config.release_keys).map_err(AppError::Key)?;
        let (clock, metrics) = (Clock::default(), Metrics::default());
        let background = Background::new(metrics.clone());
        let store = Store::open(&config.database()).await.map_err(AppError::Store)?;
        let hub = match &config.instance_id {
            Some(instance) => Hub::of(instance.clone(), clock.clone()),
            None => Hub::new(clock.clone()),
        };
        let cluster = Cluster::start(cluster::Parts {
            store: store.clone(),
            hub: hub.clone(),
            background: background.clone(),
            metrics: metrics.clone(),
            shared: config.is_shared(),
            redis: config.redis(),
            warrant_key: key.public().id(),
        })
        .await
        .map_err(AppError::Cluster)?;
        store.all_offline(hub.instance()).await.map_err(AppError::Store)?;
        let catalog = Catalog::load(store.clone(), clock.clone(), cluster.clone(), trusted).await;
        let catalog = catalog.map_err(AppError::Catalog)?;
        let telemetry = Telemetry::new(clock.clone(), metrics.clone());
        let observer = Observer::default();
        let engine = Engine::start(crate::dispatch::Parts {
            store: store.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            background: background.clone(),
            cluster: cluster.clone(),
            observer: observer.clone(),
            key,
            slots: config.slots,
            max_targets: config.max_targets,
            grace_ms: u64::from(config.result_grace_secs) * 1_000,
            anchor_secs: config.anchor_secs,
        })
        .await
        .map_err(AppError::Store)?;
        let rollouts = Rollouts::new(rollouts::Parts {
            catalog: catalog.clone(),
            store: store.clone(),
            hub: hub.clone(),
            cluster: cluster.clone(),
            engine: engine.clone(),
            observer,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
        .await
        .map_err(AppError::Store)?;
        let repository = open_repository(&config, &catalog, &rollouts, &store, &clock, &cluster, &metrics).await?;
        let registries = Registries::new(config.registries.clone());
        let releases = Releases { catalog: catalog.clone(), repository, registries };
        let config = Arc::new(config);
        let (kept_health, tls) = (Kept::default(), Arc::default());
        let traces = config.otlp_endpoint.clone().map(|to| Tracer::new(config.trace_sample, to, metrics.clone()));
        let (tracer, exporter) = traces.unzip();
        let tracer = tracer.unwrap_or_default();
        let ready = Readiness::new(store.clone(), clock.clone());
        Ok(Self {
            config,
            clock,
            store,
            catalog,
            hub,
            cluster,
            engine,
            rollouts,
            releases,
            telemetry,
            metrics,
            background,
            ready,
            tracer,
            exporter,
            admission: Arc::default(),
            kept_health,
            tls,
        })
    }

    /// Follow other instances, if there may be any.
    fn follow(&self) {
        if !self.cluster.is_shared() {
            return;
        }
        let parts = cluster::follow::Parts {
            cluster: self.cluster.clone(),
            store: self.store.clone(),
            engine: self.engine.clone(),
            catalog: self.catalog.clone(),
            rollouts: self.rollouts.clone(),
            repository: self.releases.repository.clone(),
        };
        self.background.supervise("follower", move || cluster::follow::run(parts.clone()));
    }

    /// Stop every task, then the store. Answers whether all ended in time.
    pub async fn stop(&self) -> bool {
        let clean = self.background.stop(Duration::from_secs(self.config.drain_secs)).await;
        self.cluster.leave().await;
        self.store.close().await;
        clean
    }
}

async fn open_repository(
    config: &Config,
    catalog: &Catalog,
    rollouts: &Rollouts,
    store: &Store,
    clock: &Clock,
    cluster: &Cluster,
    metrics: &Metrics,
) -> Result<Option<Repository>, AppError> {
    let Some(path) = &config.trusted_root else { return Ok(None) };
    let root = std::fs::read(path).map_err(|source| AppError::Read { path: path.clone(), source })?;
    let parts = repository::Parts {
        catalog: catalog.clone(),
        rollouts: rollouts.clone(),
        store: store.clone(),
        clock: clock.clone(),
        cluster: cluster.clone(),
        metrics: metrics.clone(),
        root,
        directory: config.repository.clone(),
        activates: config.repository_activates,
    };
    Repository::open(parts).await.map(Some).map_err(AppError::Repository)
}

/// The data directory, for its owner alone where it is made here.
///
/// # Errors
/// When it can't be made.
pub fn make_data_dir(config: &Config) -> Result<(), AppError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|source| AppError::Write { path: config.data_dir.clone(), source })
}

/// The agents' port's files, as configured.
#[must_use]
pub fn tls_files(config: &Config) -> Files {
    Files {
        cert: config.agents_cert.clone(),
        key: config.agents_key.clone(),
        client_ca: config.agents_client_ca.clone(),
        crl: config.agents_crl.clone(),
    }
}

/// Run until SIGTERM or SIGINT. Answers whether everything ended in time.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config) -> Result<bool, AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signal)?;
    let tls = Arc::new(Tls::load(tls_files(&config)).map_err(AppError::Tls)?);
    make_data_dir(&config)?;
    let _held = backup::hold(&config.data_dir).map_err(AppError::Held)?;
    let state = AppState::build(config).await?;
    let (api, agents) = state.start(tls).await?;
    tracing::info!(%api, %agents, "listening");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    state.ready.drain();
    // Served as ever meanwhile: whoever sends requests here learns not to from `/health/ready`.
    let notice = tokio::time::sleep(Duration::from_secs(state.config.drain_notice_secs));
    tokio::select! {
        () = notice => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let clean = state.stop().await;
    tracing::info!(clean, "stopped");
    Ok(clean)
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(Arc<std::net::TcpListener>, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { what, address, source };
    let listener = bind(address).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((Arc::new(listener.into_std().map_err(failed)?), real))
}

/// A predecessor that was killed may hold the address for a moment still; its connections
/// that linger are no hindrance (tokio sets `SO_REUSEADDR`).
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + BIND_WITHIN;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline => {
                tracing::warn!(%address, "the address is in use; tried again");
                tokio::time::sleep(BIND_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// The same socket again, for a task that is started again.
fn again(listener: &std::net::TcpListener) -> Option<TcpListener> {
    let listener = listener.try_clone().and_then(TcpListener::from_std);
    listener.inspect_err(|error| tracing::error!(%error, "the listening socket can't be used again")).ok()
}

impl AppState {
    /// What the agents' port believes and bears, as configured.
    fn agents_edge(&self) -> hub::Edge {
        let config = &self.config;
        let limits = Limits {
            rate: config.agents_address_rate,
            burst: config.agents_address_burst,
            places: config.agents_address_handshakes,
        };
        hub::Edge {
            trusted: config.trusted_proxies.clone(),
            proxy_protocol: config.agents_proxy_protocol,
            // A checked configuration has a name that is one.
            client_cert_header: config.client_cert_header.as_ref().and_then(|name| name.parse().ok()),
            admission: Admission::new(config.agents_handshakes, limits),
            max_sessions: config.max_sessions.map_or_else(hub::sessions_by_files, |max| max as usize),
        }
    }

    /// Listen and start every task; answers the real addresses of the API and of the
    /// agents' port, which are also in `<data_dir>/listening.json`.
    ///
    /// # Errors
    /// When an address is taken, or the file can't be written.
    pub async fn start(&self, tls: Arc<Tls>) -> Result<(SocketAddr, SocketAddr), AppError> {
        let (api_socket, api) = listen("the API's address", self.config.api_listen).await?;
        let (agents_socket, agents) = listen("the agents' address", self.config.agents_listen).await?;
        // Set once: an instance starts once.
        let _ = self.tls.set(tls.clone());
        let (header_socket, header) = match self.config.agents_header_listen {
            None => (None, None),
            Some(address) => {
                let (socket, real) = listen("the address for agents' proxies", address).await?;
                (Some(socket), Some(real))
            }
        };
        let port = Arc::new(Port {
            hub: self.hub.clone(),
            ready: self.ready.clone(),
            cluster: self.cluster.clone(),
            tls,
            engine: self.engine.clone(),
            catalog: self.catalog.clone(),
            telemetry: self.telemetry.clone(),
            observer: self.rollouts.observer().clone(),
            repository: self.releases.repository.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            background: self.background.clone(),
            heartbeat_secs: self.config.heartbeat_secs,
            edge: self.agents_edge(),
            refused: hub::RefusalRate::default(),
        });
        // Set once: an instance starts once.
        let _ = self.admission.set(port.edge.admission.clone());
        let background = &self.background;
        let serving = port.clone();
        background.supervise("agents-port", move || {
            let (port, listener) = (serving.clone(), again(&agents_socket));
            async move {
                if let Some(listener) = listener {
                    port.serve(listener, hub::Entrance::Direct).await;
                }
            }
        });
        if let Some(socket) = header_socket {
            let serving = port.clone();
            background.supervise("agents-header-port", move || {
                let (port, listener) = (serving.clone(), again(&socket));
                async move {
                    if let Some(listener) = listener {
                        port.serve(listener, hub::Entrance::Proxies).await;
                    }
                }
            });
        }
        background.supervise("sweeper", move || hub::sweep(port.clone()));
        let state = self.clone();
        background.supervise("telemetry", move || {
            state.telemetry.clone().run(state.store.clone(), state.background.token().clone())
        });
        let state = self.clone();
        background.supervise("rollouts", move || state.rollouts.clone().run(state.background.token().clone()));
        if let Some(exporter) = self.exporter.clone() {
            let stop = background.token().clone();
            background.supervise("traces", move || exporter.clone().run(stop.clone()));
        }
        if let Some(repository) = self.releases.repository.clone() {
            let stop = background.token().clone();
            background.supervise("repository", move || repository.clone().run(stop.clone()));
        }
        self.follow();
        let state = self.clone();
        background.supervise("stale-agents", move || chores::stale_agents(state.clone()));
        let state = self.clone();
        background.supervise("retention", move || chores::retention(state.clone()));
        if let Some(schedule) = self.config.cleanup_containers_schedule.clone() {
            let state = self.clone();
            background.supervise("schedule", move || chores::scheduled_cleanup(state.clone(), schedule.clone()));
        }
        let state = self.clone();
        background.supervise("api", move || {
            let (state, listener) = (state.clone(), again(&api_socket));
            async move {
                let stop = state.background.token().clone();
                if let Some(listener) = listener {
                    api::serve(listener, state, stop).await;
                }
            }
        });
        let file = self.config.data_dir.join("listening.json");
        let text = json!({ "api": api.to_string(), "agents": agents.to_string(), "agents_header": header }).to_string();
        // Renamed into place: whoever waits for it never reads half of it.
        let part = file.with_extension("json.part");
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &file))
            .map_err(|source| AppError::Write { path: file, source })?;
        Ok((api, agents))
    }
}
