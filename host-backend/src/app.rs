//! Everything put together: built in order, started, and stopped in the opposite order
//! within a deadline.

use std::sync::Arc;
use std::time::Duration;

use crate::background::Background;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::Engine;
use crate::health::Kept;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// What the API works with; clones share everything.
#[derive(Debug, Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub store: Store,
    pub catalog: Catalog,
    pub hub: Hub,
    pub engine: Engine,
    pub telemetry: Telemetry,
    pub metrics: Metrics,
    pub background: Background,
    pub(crate) kept_health: Kept,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the store")]
    Store(#[source] crate::store::StoreError),
    #[error("the plugin catalogue")]
    Catalog(#[source] crate::catalog::CatalogError),
    #[error("keys")]
    Key(#[source] crate::keys::KeyError),
    #[error("TLS of the agents' port")]
    Tls(#[source] crate::hub::TlsError),
    #[error("{what} {address} can't be listened on")]
    Listen { what: &'static str, address: std::net::SocketAddr, source: std::io::Error },
    #[error("{path} can't be written")]
    Write { path: std::path::PathBuf, source: std::io::Error },
}

impl AppState {
    /// Open and build everything that needs no socket, and start the engine's tasks.
    ///
    /// # Errors
    /// The first part that can't be built.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|source| AppError::Write { path: config.data_dir.clone(), source })?;
        let key = crate::keys::secret_or_new(&config.warrant_key()).map_err(AppError::Key)?;
        let trusted = crate::keys::release_keys(&config.release_keys).map_err(AppError::Key)?;
        let (clock, metrics) = (Clock::default(), Metrics::default());
        let background = Background::new(metrics.clone());
        let store = Store::open(&config.database()).await.map_err(AppError::Store)?;
        store.all_offline().await.map_err(AppError::Store)?;
        let catalog = Catalog::load(store.clone(), clock.clone(), trusted).await.map_err(AppError::Catalog)?;
        let hub = Hub::new(clock.clone());
        let telemetry = Telemetry::new(clock.clone(), metrics.clone());
        let engine = Engine::start(crate::dispatch::Parts {
            store: store.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            background: background.clone(),
            key,
            slots: config.slots,
            max_targets: config.max_targets,
            grace_ms: u64::from(config.result_grace_secs) * 1_000,
        })
        .await
        .map_err(AppError::Store)?;
        let config = Arc::new(config);
        let kept_health = Kept::default();
        Ok(Self { config, clock, store, catalog, hub, engine, telemetry, metrics, background, kept_health })
    }

    /// Stop every task, then the store. Answers whether all ended in time.
    pub async fn stop(&self) -> bool {
        let clean = self.background.stop(Duration::from_secs(self.config.drain_secs)).await;
        self.store.close().await;
        clean
    }
}
