//! The status socket: HTTP/1 on a unix socket of mode 0660, `GET /health`, `/health/live`,
//! `/health/ready` and `/metrics`. Refuses everything else, and more than a few callers at a time.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use viworks_protocol::exposition::Format;

use super::{LIMIT, Vitals, metrics};

/// Callers at a time; one more waits in the socket's queue.
const CALLERS: usize = 8;

/// The bound socket; gone from the file system when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("another gateway answers on {0}")]
    InUse(PathBuf),
    #[error("the status socket {0} can't be made")]
    Bind(PathBuf, #[source] std::io::Error),
}

impl Server {
    /// Bind the socket, in the place of one that a dead gateway left.
    ///
    /// # Errors
    /// When somebody answers there already, or it can't be made.
    pub async fn bind(path: &Path) -> Result<Self, ServeError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServeError::InUse(path.to_owned()));
        }
        let failed = |error| ServeError::Bind(path.to_owned(), error);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answer until `stop`.
    pub async fn run(self, vitals: Vitals, tasks: TaskTracker, stop: CancellationToken) {
        let callers = Arc::new(Semaphore::new(CALLERS));
        loop {
            let Ok(place) = Arc::clone(&callers).acquire_owned().await else { return };
            let stream = match stop.run_until_cancelled(self.listener.accept()).await {
                None => return,
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    // Out of file descriptors, most likely: they come back, but not at once.
                    tracing::warn!(%error, "a caller of the status socket was lost");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let vitals = vitals.clone();
            tasks.spawn(async move {
                let _place = place;
                let service = service_fn(move |request| {
                    let vitals = vitals.clone();
                    async move { Ok::<_, Infallible>(answer(&request, &vitals).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.keep_alive(false).max_buf_size(16 * 1_024);
                // A caller that dawdles or breaks off is no concern of ours.
                let _ = tokio::time::timeout(LIMIT, http.serve_connection(TokioIo::new(stream), service)).await;
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer<B>(request: &Request<B>, vitals: &Vitals) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => {
            let health = vitals.health().await;
            let status = if health.status == "healthy" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, "application/json", serde_json::to_string(&health).unwrap_or_default())
        }
        (&Method::GET, "/health/live") => (StatusCode::OK, "application/json", r#"{"status":"alive"}"#.to_owned()),
        (&Method::GET, "/health/ready") => {
            let reasons = vitals.not_ready();
            let (code, status) = match reasons.is_empty() {
                true => (StatusCode::OK, "ready"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            };
            (code, "application/json", serde_json::json!({ "status": status, "reasons": reasons }).to_string())
        }
        (&Method::GET, "/metrics") => {
            let format = Format::accepted(request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()));
            let services = vitals.services().await;
            (StatusCode::OK, format.content_type(), format.write(metrics::text(vitals, services)))
        }
        (_, "/health" | "/health/live" | "/health/ready" | "/metrics") => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned())
        }
        _ => {
            (StatusCode::NOT_FOUND, "text/plain", "only /health, /health/live, /health/ready and /metrics\n".to_owned())
        }
    };
    let response = Response::builder().status(status).header(CONTENT_TYPE, kind).header(CACHE_CONTROL, "no-store");
    response.header(ALLOW, "GET").body(Full::new(body.into())).unwrap_or_default()
}
