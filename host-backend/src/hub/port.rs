//! The agents' port: from a connection to a request, within bounds of number and time.
//! Peers that are no trusted proxy where one is wanted, and what is malformed, are refused,
//! audited and counted; those for whom there is no room now are only counted.

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

use super::request::{Admitted, Caller, Upgrade};
use super::wire::Socket;
use super::{Hub, Identity, IdentityError, Tls, greet, lock};
use crate::background::Background;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::dispatch::Engine;
use crate::edge::proxy::{self, ProxyError, Source};
use crate::edge::{Admission, Full, Nets, addresses, admission};
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::rollouts::Observer;
use crate::store::Store;
use crate::store::model::{AuditEntry, Decision};
use crate::telemetry::Telemetry;

/// For TLS and the request together, the wait for a turn included.
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
    #[error("the peer is no trusted proxy")]
    Untrusted,
    #[error("the PROXY protocol")]
    Proxy(#[from] ProxyError),
    #[error("no room now")]
    Full(#[from] Full),
}

/// Whose connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Gateways', who show their certificates here, themselves or through what passes TLS on.
    Direct,
    /// Proxies', who end TLS and pass certificates on. Plain where the listener is on this
    /// host's loopback, TLS elsewhere.
    Proxies,
}

/// What the port believes and bears.
#[derive(Debug)]
pub struct Edge {
    pub trusted: Nets,
    /// Whether connections of gateways begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    pub client_cert_header: Option<hyper::header::HeaderName>,
    pub admission: Admission,
    pub max_sessions: usize,
}

/// What sessions need.
#[derive(Debug)]
pub struct Port {
    pub hub: Hub,
    pub ready: Readiness,
    pub cluster: Cluster,
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
    pub edge: Edge,
    /// Refusals in the minute at hand: the minute's number and the count.
    pub refused: RefusalRate,
}

/// Bounds what strangers can make us write.
#[derive(Debug, Default)]
pub struct RefusalRate {
    minute: AtomicU64,
    count: AtomicU64,
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

/// What there is before a session.
struct Opened {
    socket: Socket,
    /// Of the session's first bytes, what came with the request.
    read: Vec<u8>,
    admitted: Admitted,
}

impl Port {
    /// Take connections until everything stops.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, entrance: Entrance) {
        let stop = self.background.token().clone();
        let plain = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = self.edge.admission.place() else {
                        // Dropped, that is closed: nothing is cheaper, and gateways come again.
                        Metrics::count(&self.metrics.refusals, Full::Places.rule());
                        continue;
                    };
                    let this = self.clone();
                    self.background.tracker().spawn(async move {
                        let stop = this.background.token().clone();
                        let taken = Box::pin(this.connection(stream, peer, entrance, plain));
                        stop.run_until_cancelled(taken).await;
                        drop::<admission::Place>(place);
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
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, entrance: Entrance, plain: bool) {
        // Frames are whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let began = tokio::time::Instant::now();
        let mut real = peer;
        let opened = self.opened(stream, &mut real, entrance, plain).await;
        match opened {
            Ok(Some((Opened { socket, read, admitted }, _place))) => {
                let Admitted { identity, peer, place: _place } = admitted;
                greet::greet(self, socket, read, identity, (peer, began)).await;
            }
            Ok(None) => {}
            Err(PortError::Full(full)) => {
                Metrics::count(&self.metrics.refusals, full.rule());
                tracing::debug!(peer = %real, rule = full.rule(), "refused");
            }
            Err(PortError::Tls(error)) => self.stranger(real, "tls", &error.to_string()).await,
            Err(error @ PortError::Untrusted) => self.stranger(peer, "untrusted-proxy", &error.to_string()).await,
            Err(PortError::Proxy(error)) => self.stranger(peer, "proxy-header", &error.to_string()).await,
            Err(error) => self.stranger(real, "handshake", &format!("{error}")).await,
        }
    }

    /// `peer` becomes who it really is.
    async fn opened(
        self: &Arc<Self>,
        mut stream: TcpStream,
        peer: &mut SocketAddr,
        entrance: Entrance,
        plain: bool,
    ) -> Result<Option<(Opened, Option<addresses::Place>)>, PortError> {
        let edge = &self.edge;
        let behind = entrance == Entrance::Proxies || edge.proxy_protocol;
        if behind && !edge.trusted.contains(peer.ip()) {
            return Err(PortError::Untrusted);
        }
        if entrance == Entrance::Proxies {
            let opened = self.request(stream, *peer, entrance, plain);
            return Ok(within(opened).await?.map(|opened| (opened, None)));
        }
        if edge.proxy_protocol
            && let Source::Of(source) = proxy::read(&mut stream).await?
        {
            *peer = source;
        }
        let place = edge.admission.of_address(peer.ip())?;
        let opened = within(self.request(stream, *peer, entrance, false)).await?;
        Ok(opened.map(|opened| (opened, Some(place))))
    }

    /// TLS, where there is any, and the request.
    async fn request(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        entrance: Entrance,
        plain: bool,
    ) -> Result<Option<Opened>, PortError> {
        let (socket, identity) = if plain && entrance == Entrance::Proxies {
            (Socket::Plain(stream), Err(IdentityError::Missing))
        } else {
            // Who says nothing has no turn: it begins with a whole greeting.
            let greeted = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
            let greeted = greeted.await.map_err(PortError::Tls)?;
            let turn = self.edge.admission.turn().await?;
            let tls = turn.spend(greeted.into_stream(self.tls.config())).await.map_err(PortError::Tls)?;
            let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
            let identity = certificate.ok_or(IdentityError::Missing).and_then(|der| Identity::from_der(&der));
            (Socket::Tls(tls), identity)
        };
        let caller = Arc::new(Caller { peer, entrance, identity });
        let upgrade: Arc<Mutex<Option<Upgrade>>> = Arc::default();
        let service = hyper::service::service_fn(|request| {
            let (this, caller, upgrade) = (self.clone(), caller.clone(), upgrade.clone());
            async move { Ok::<_, Infallible>(this.answer(request, &caller, &upgrade).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(16 * 1024)
            .max_headers(32)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await
            .map_err(PortError::Http)?;
        let Some(Upgrade { on, admitted }) = lock(&upgrade).take() else { return Ok(None) };
        let Ok(parts) = on.await.map_err(PortError::Http)?.downcast::<TokioIo<Socket>>() else { return Ok(None) };
        let mut socket = parts.io.into_inner();
        match admitted {
            Some(admitted) => Ok(Some(Opened { socket, read: parts.read_buf.to_vec(), admitted })),
            None => {
                // hyper leaves the closing to whoever asked for the upgrade.
                let _ = socket.shutdown().await;
                Ok(None)
            }
        }
    }

    /// Refuse a peer that no certificate names.
    pub(super) async fn stranger(&self, peer: SocketAddr, rule: &'static str, detail: &str) {
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

async fn within<T>(work: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
    tokio::time::timeout(HANDSHAKE_WITHIN, work).await.unwrap_or(Err(PortError::Timeout))
}

/// Nine tenths of the files that this process may open, so that there is always one for
/// the store and for operators.
#[must_use]
pub fn sessions_by_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft.map(str::parse::<usize>) {
        Some(Ok(files)) => files / 10 * 9,
        // Unlimited, or not told.
        _ => usize::MAX,
    }
}
