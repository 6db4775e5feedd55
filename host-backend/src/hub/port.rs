//! The agents' port: handshakes within bounds of number and time, `/health` for anybody,
//! `/ws/agent` for who showed a client certificate that names an agent. Everything else
//! is refused, audited and counted.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::wire::Socket;
use super::{Hub, Identity, IdentityError, Tls, greet, lock};
use crate::background::Background;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::dispatch::Engine;
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::rollouts::Observer;
use crate::store::Store;
use crate::store::model::{AuditEntry, Decision};
use crate::telemetry::Telemetry;

/// Connections that are no sessions yet.
const HANDSHAKES: usize = 512;
/// For TLS and the request together.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// After an error of `accept`, which is most often a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Refusals of peers without an identity that are audited in a minute; all are counted.
const AUDITED_A_MINUTE: u64 = 120;

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("TLS")]
    Tls(#[source] std::io::Error),
    #[error("HTTP")]
    Http(#[source] hyper::Error),
    #[error("nothing complete came in time")]
    Timeout,
}

/// What sessions need.
#[derive(Debug)]
pub struct Port {
    pub hub: Hub,
    pub tls: Arc<Tls>,
    pub engine: Engine,
    pub catalog: Catalog,
    pub telemetry: Telemetry,
    pub observer: Observer,
    /// Whose metadata gateways may ask for.
    pub repository: Option<Repository>,
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub background: Background,
    pub heartbeat_secs: u32,
    /// Refusals in the minute at hand: the minute's number and the count.
    pub refused: RefusalRate,
}

/// Bounds what strangers can make us write.
#[derive(Debug, Default)]
pub struct RefusalRate {
    minute: AtomicU64,
    count: AtomicU64,
}

/// The upgrade that a request asked for, and whether it gets it.
struct Upgrade {
    on: OnUpgrade,
    accepted: bool,
}

impl RefusalRate {
    fn take(&self, now_ms: u64) -> bool {
        let minute = now_ms / 60_000;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < AUDITED_A_MINUTE
    }
}

impl Port {
    /// Take connections until everything stops.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let stop = self.background.token().clone();
        loop {
            let next = async {
                // First the place, then the connection: those beyond wait in the kernel.
                let place = handshakes.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let Some((Ok(place), accepted)) = stop.run_until_cancelled(next).await else { return };
            match accepted {
                Ok((stream, peer)) => {
                    let this = self.clone();
                    self.background.tracker().spawn(async move {
                        let stop = this.background.token().clone();
                        stop.run_until_cancelled(Box::pin(this.connection(stream, peer))).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// From TCP to a session or an answer.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Frames are whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, self.request(stream, peer));
        match handshake.await.unwrap_or(Err(PortError::Timeout)) {
            Ok(Some((socket, read, identity))) => greet::greet(self, socket, read, identity, peer).await,
            Ok(None) => {}
            Err(PortError::Tls(error)) => self.stranger(peer, "tls", &error.to_string()).await,
            Err(error) => self.stranger(peer, "handshake", &format!("{error}")).await,
        }
    }

    async fn request(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Option<(Socket, Vec<u8>, Identity)>, PortError> {
        let tls = TlsAcceptor::from(self.tls.config()).accept(stream).await.map_err(PortError::Tls)?;
        let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let identity = certificate.ok_or(IdentityError::Missing).and_then(|der| Identity::from_der(&der));
        let identity = Arc::new(identity);
        let upgrade: Arc<Mutex<Option<Upgrade>>> = Arc::default();
        let service = hyper::service::service_fn(|request| {
            let (this, identity, upgrade) = (self.clone(), identity.clone(), upgrade.clone());
            async move { Ok::<_, Infallible>(this.answer(request, &identity, &upgrade, peer).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(16 * 1024)
            .max_headers(32)
            .serve_connection(TokioIo::new(tls), service)
            .with_upgrades()
            .await
            .map_err(PortError::Http)?;
        let Some(Upgrade { on, accepted }) = lock(&upgrade).take() else { return Ok(None) };
        let Ok(parts) = on.await.map_err(PortError::Http)?.downcast::<TokioIo<Socket>>() else { return Ok(None) };
        let mut socket = parts.io.into_inner();
        match Arc::into_inner(identity) {
            Some(Ok(identity)) if accepted => Ok(Some((socket, parts.read_buf.to_vec(), identity))),
            _ => {
                // hyper leaves the closing to whoever asked for the upgrade.
                let _ = socket.shutdown().await;
                Ok(None)
            }
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        identity: &Result<Identity, IdentityError>,
        upgrade: &Mutex<Option<Upgrade>>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        if request.headers().contains_key(UPGRADE) {
            *lock(upgrade) = Some(Upgrade { on: hyper::upgrade::on(&mut request), accepted: false });
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/health") => json(StatusCode::OK, r#"{"status":"healthy"}"#),
            (&Method::GET, viworks_protocol::PATH) => {
                if let Err(error) = identity {
                    self.stranger(peer, "identity", &error.to_string()).await;
                    return json(
                        StatusCode::FORBIDDEN,
                        r#"{"error":"a client certificate that names an agent is wanted"}"#,
                    );
                }
                let Some(key) = websocket_key(&request) else {
                    return json(StatusCode::BAD_REQUEST, r#"{"error":"not a WebSocket handshake (RFC 6455)"}"#);
                };
                if let Some(upgrade) = &mut *lock(upgrade) {
                    upgrade.accepted = true;
                }
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, key);
                response
            }
            _ => json(StatusCode::NOT_FOUND, r#"{"error":"there is no such resource"}"#),
        }
    }

    /// Refuse a peer that no certificate names.
    async fn stranger(&self, peer: SocketAddr, rule: &'static str, detail: &str) {
        Metrics::count(&self.metrics.refusals, rule);
        tracing::warn!(%peer, rule, detail, "refused");
        if self.refused.take(self.clock.now_ms()) {
            self.audit(format!("peer:{}", peer.ip()), rule, String::new(), detail).await;
        }
    }

    /// Refuse an agent.
    pub(super) async fn refuse(&self, identity: &Identity, rule: &'static str, detail: &str) {
        Metrics::count(&self.metrics.refusals, rule);
        let agent = &identity.agent;
        tracing::warn!(%agent, rule, detail, "refused");
        self.audit(format!("agent:{agent}"), rule, agent.to_string(), detail).await;
    }

    async fn audit(&self, actor: String, rule: &str, subject: String, detail: &str) {
        let detail: String = detail.chars().take(500).collect();
        let (at_ms, action, decision) = (self.clock.now_ms(), format!("session.{rule}"), Decision::Refused);
        self.store.audit(AuditEntry { at_ms, actor, action, subject, decision, detail }).await;
    }
}

fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // One request a connection: places are few.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a WebSocket handshake's key, if it is such a handshake.
fn websocket_key(request: &Request<Incoming>) -> Option<HeaderValue> {
    let has = |name, wanted: &str| {
        request
            .headers()
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    };
    let whole = has(CONNECTION, "upgrade") && has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| whole)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
