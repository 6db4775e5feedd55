//! The listener's loop: HTTP/1.1 connections, each within bounds on headers, idleness and
//! stalled writes, and so many of an address. On shutdown it takes no more, lets what runs
//! end, then cuts off.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::socket::MovingWrites;
use crate::config::Config;
use crate::edge::proxy::{self, Source};
use crate::edge::{Addresses, Limits, Nets, addresses, forwarded};

const MAX_CONNECTIONS: usize = 4_096;
const MAX_HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 * 1024;
/// For the headers of a request, and between two requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const WRITES_WITHIN: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(10);
/// After an error of `accept`, which is most often a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Told to those who open too many connections; it may be lost on the way.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Whom the listener believes, and how much an address may ask of it: a connection and a
/// request count alike.
#[derive(Debug, Clone)]
pub struct Edge {
    trusted: Nets,
    proxy_protocol: bool,
    pub addresses: Addresses,
}

impl Edge {
    pub fn new(config: &Config) -> Self {
        let limits = Limits {
            rate: config.api_address_rate,
            burst: config.api_address_burst,
            places: config.api_address_connections,
        };
        Self {
            trusted: config.trusted_proxies.clone(),
            proxy_protocol: config.api_proxy_protocol,
            addresses: Addresses::new(limits),
        }
    }

    /// Who really connects, and its place; `None`: the connection is refused. A proxy that
    /// speaks HTTP for others has no place of its own.
    async fn admit(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<(SocketAddr, Option<addresses::Place>)> {
        let trusted = self.trusted.contains(peer.ip());
        let mut real = peer;
        if self.proxy_protocol {
            if !trusted {
                tracing::warn!(%peer, rule = "untrusted-proxy", "refused");
                return None;
            }
            match proxy::read(stream).await {
                Ok(Source::Of(source)) => real = source,
                Ok(Source::Own) => {}
                Err(error) => {
                    tracing::warn!(%peer, rule = "proxy-header", %error, "refused");
                    return None;
                }
            }
        }
        if self.trusted.contains(real.ip()) {
            return Some((real, None));
        }
        match self.addresses.enter(real.ip(), Instant::now()) {
            Ok(place) => Some((real, Some(place))),
            Err(too_much) => {
                tracing::debug!(peer = %real, %too_much, "refused");
                let _ = stream.try_write(TOO_MANY);
                None
            }
        }
    }
}

/// Serve until `shutdown`, then drain.
pub(super) async fn run(listener: TcpListener, router: Router, shutdown: CancellationToken, edge: Edge) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((mut stream, peer, permit)) = shutdown.run_until_cancelled(accept(&listener, &connections)).await {
        let (router, edge, cut, watcher) = (router.clone(), edge.clone(), cut.clone(), graceful.watcher());
        let connection = async move {
            let Some((real, _place)) = edge.admit(&mut stream, peer).await else { return };
            let trusted = edge.trusted;
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                let client = forwarded::client(request.headers(), real, &trusted);
                request.extensions_mut().insert(ConnectInfo(client));
                router.clone().oneshot(request.map(Body::new))
            });
            let io = TokioIo::new(MovingWrites::new(stream, WRITES_WITHIN));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_headers(MAX_HEADERS)
                .max_buf_size(HEADER_BYTES)
                .serve_connection(io, service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(peer = %real, %error, "connection ended");
            }
        };
        tasks.spawn(async move {
            cut.run_until_cancelled(connection).await;
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were cut off after the drain time");
    }
    cut.cancel();
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let permit = connections.clone().acquire_owned().await;
        match (permit, listener.accept().await) {
            (Ok(permit), Ok((stream, peer))) => {
                // Answers are whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                return (stream, peer, permit);
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
            (Err(_closed), Ok(_)) => {}
        }
    }
}
