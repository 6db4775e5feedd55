//! The listener's loop: HTTP/1.1 connections, each within bounds on headers, idleness and
//! stalled writes. On shutdown it takes no more, lets what runs end, then cuts off.

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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::socket::MovingWrites;

const MAX_CONNECTIONS: usize = 4_096;
const MAX_HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 * 1024;
/// For the headers of a request, and between two requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const WRITES_WITHIN: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(10);
/// After an error of `accept`, which is most often a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serve until `shutdown`, then drain.
pub(super) async fn run(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((stream, peer, permit)) = shutdown.run_until_cancelled(accept(&listener, &connections)).await {
        let router = router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request.map(Body::new))
        });
        let io = TokioIo::new(MovingWrites::new(stream, WRITES_WITHIN));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_headers(MAX_HEADERS)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(io, service);
        let connection = graceful.watch(connection);
        let cut = cut.clone();
        tasks.spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
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
