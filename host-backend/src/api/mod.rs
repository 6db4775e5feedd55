//! The HTTP API on 8080: this file is its map. A handler's first argument is a
//! [`crate::authz::Permit`] unless the resource is open; every error is a problem.
//!
//! - [`problem`]: errors as clients see them; `mapping`: which of ours becomes which
//! - [`extract`], [`page`], [`moment`]: reading requests, lists, times
//! - `layers`: what surrounds every request
//! - `serve`, `socket`: the listener and its connections
//! - `gauges`: what `/metrics` reads off
//! - [`agents`], [`commands`], [`verbs`], [`plugins`], [`repository`], [`tokens`], [`approvers`], [`receipts`],
//!   [`audit`], [`health`], [`metrics`], [`openapi`]: one resource each

pub mod agents;
pub mod approvers;
pub mod audit;
pub mod commands;
pub mod extract;
mod gauges;
pub mod health;
mod layers;
mod mapping;
pub mod metrics;
pub mod moment;
pub mod openapi;
pub mod page;
pub mod plugins;
pub mod problem;
pub mod receipts;
pub mod repository;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod verbs;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::app::AppState;
use crate::authz::Guard;
use crate::cluster::rate::Limit;
use problem::{Code, Problem};

/// Bytes of any body but an upload's.
const BODY: usize = 1024 * 1024;
/// Bytes of a plugin's upload: base64 of a 24 MiB component, and its statements.
const UPLOAD: usize = 33 * 1024 * 1024;
/// Bytes of an exported release repository.
const REPOSITORY: usize = 128 * 1024 * 1024;
/// Event streams open at once.
const STREAMS: usize = 1_024;

/// What handlers share.
#[derive(Debug)]
pub struct Api {
    pub(crate) app: AppState,
    pub(crate) guard: Guard,
    registry: Registry,
    http: metrics::HttpMetrics,
    gauges: gauges::Gauges,
    requests: Semaphore,
    streams: Arc<Semaphore>,
    edge: serve::Edge,
    /// Ends event streams.
    shutdown: CancellationToken,
    document: Bytes,
}

pub type Shared = Arc<Api>;

/// Serve on `listener` until `shutdown`, then drain.
pub async fn serve(listener: TcpListener, app: AppState, shutdown: CancellationToken) {
    let (routes, document) = resources().split_for_parts();
    let api = share(app, shutdown.clone(), write(&document));
    let edge = api.edge.clone();
    serve::run(listener, surround(routes, api), shutdown, edge).await;
}

/// The contract: every resource and its methods.
fn resources() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(health::get))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get))
        .routes(routes!(agents::telemetry))
        .routes(routes!(commands::read::list, commands::create::post))
        .routes(routes!(commands::read::get))
        .routes(routes!(commands::read::invocations))
        .routes(routes!(commands::events::get))
        .routes(routes!(commands::control::cancel))
        .routes(routes!(commands::control::undo))
        .routes(routes!(commands::approve::post))
        .routes(routes!(commands::read::plan))
        .routes(routes!(verbs::list))
        .routes(routes!(verbs::get))
        .routes(routes!(plugins::list, plugins::publish).layer(DefaultBodyLimit::max(UPLOAD)))
        .routes(routes!(plugins::deactivate))
        .routes(routes!(plugins::kill::post))
        .routes(routes!(plugins::review::diff))
        .routes(routes!(plugins::review::approve))
        .routes(routes!(plugins::rollouts::list, plugins::rollouts::post))
        .routes(routes!(plugins::rollouts::get))
        .routes(routes!(plugins::rollouts::pause))
        .routes(routes!(plugins::rollouts::resume))
        .routes(routes!(plugins::rollouts::abort))
        .routes(routes!(repository::get, repository::post).layer(DefaultBodyLimit::max(REPOSITORY)))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(approvers::list, approvers::add))
        .routes(routes!(approvers::remove))
        .routes(routes!(receipts::list))
        .routes(routes!(receipts::keys))
        .routes(routes!(receipts::anchors))
        .routes(routes!(audit::list))
        .routes(routes!(metrics::get))
        .routes(routes!(openapi::get))
}

/// The whole service: resources, bounds, and problems for what is not there.
pub fn router(app: AppState, shutdown: CancellationToken) -> Router {
    let (routes, document) = resources().split_for_parts();
    let api = share(app, shutdown, write(&document));
    surround(routes, api)
}

fn share(app: AppState, shutdown: CancellationToken, document: String) -> Shared {
    let limit = Limit::new(app.cluster.clone(), app.config.api_rate, app.config.api_burst);
    let guard = Guard::new(app.store.clone(), app.clock.clone(), limit, app.cluster.clone());
    let edge = serve::Edge::new(&app.config);
    let mut registry = Registry::with_prefix("viworks_backend");
    app.metrics.register(&mut registry);
    app.store.register(&mut registry);
    let http = metrics::HttpMetrics::register(&mut registry, &guard);
    let gauges = gauges::Gauges::register(&mut registry);
    Arc::new(Api {
        app,
        guard,
        registry,
        http,
        gauges,
        requests: Semaphore::new(layers::MAX_REQUESTS),
        streams: Arc::new(Semaphore::new(STREAMS)),
        edge,
        shutdown,
        document: document.into(),
    })
}

fn surround(routes: Router<Shared>, api: Shared) -> Router {
    routes
        .fallback(async || Problem::new(Code::NotFound, "there is no such resource"))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed, "see the Allow header"))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(api.clone(), layers::around))
        .with_state(api)
}

fn write(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// The OpenAPI document's text.
#[must_use]
pub fn document() -> String {
    write(&resources().split_for_parts().1)
}
