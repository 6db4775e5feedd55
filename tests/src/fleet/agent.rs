//! One simulated gateway: hello, pongs, and an answer to every order.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use viworks_protocol::frame::{BackendFrame, GatewayFrame, Hello};
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::merkle::Hash;
use viworks_protocol::outcome::{Cost, Failure, Outcome, Report};
use viworks_protocol::warrant::{Order, Warrant};

use super::Counts;
use super::plugins::Plugins;

/// How an agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers at once.
    Prompt,
    /// Answers after a while.
    Slow(Duration),
    /// Takes orders and never answers.
    Silent,
    /// Answers pings with nothing either.
    Dead,
    /// Leaves and comes back again and again.
    Reconnecting(Duration),
}

/// What every agent of a process answers with; parsed orders are shared, since a command
/// is the same for all of its targets.
#[derive(Debug)]
pub struct Answers {
    result: Box<RawValue>,
    last: Mutex<Option<(String, Arc<Ordered>)>>,
    /// Whether offered plugins are fetched.
    fetch: bool,
    /// By a digest's beginning: how many of a hundred invocations of it fail.
    fail: Vec<(String, u32)>,
    pub counts: Counts,
}

#[derive(Debug)]
struct Ordered {
    warrant: Warrant,
    root: Hash,
}

impl Answers {
    /// Answer with this JSON.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn new(result: &str) -> Result<Self> {
        let result = RawValue::from_string(result.to_owned()).map_err(Error::other)?;
        let counts = Counts::default();
        Ok(Self { result, last: Mutex::new(None), fetch: false, fail: Vec::new(), counts })
    }

    /// Fetch offered plugins, and let so many of a hundred invocations of a release fail.
    #[must_use]
    pub fn with_plugins(self, fail: Vec<(String, u32)>) -> Self {
        Self { fetch: true, fail, ..self }
    }

    /// The order, read from the warrant: a simulator trusts its backend.
    fn order(&self, order: &Order) -> Result<Arc<Ordered>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((payload, ordered)) = last.as_ref()
            && *payload == order.warrant.payload
        {
            return Ok(ordered.clone());
        }
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&order.warrant.payload).map_err(Error::other)?;
        let warrant: Warrant = serde_json::from_slice(&bytes).map_err(Error::other)?;
        let mut root = Hash::default();
        hex::decode_to_slice(&warrant.targets_root, &mut root).map_err(Error::other)?;
        let ordered = Arc::new(Ordered { warrant, root });
        *last = Some((order.warrant.payload.clone(), ordered.clone()));
        Ok(ordered)
    }

    /// As the release that runs it here fares: what is active, if the warrant names it.
    fn report(&self, ordered: &Ordered, invocation: &InvocationId, plugins: &Plugins) -> Report {
        let Warrant { plugin, digest, also, .. } = &ordered.warrant;
        let active = plugins.active(plugin).filter(|active| digest == *active || also.iter().any(|a| a == *active));
        let ran = active.unwrap_or(digest);
        let rate = self.fail.iter().find(|(begin, _)| ran.starts_with(begin)).map_or(0, |(_, rate)| *rate);
        let draw = invocation.as_str().bytes().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(b)));
        let fails = draw % 100 < rate;
        let now = now_ms();
        Report {
            outcome: if fails { Outcome::Failed } else { Outcome::Succeeded },
            result: (!fails).then(|| self.result.clone()),
            failure: fails.then(|| Failure { code: "failed".into(), message: "as told".into(), rule: None }),
            effects: Vec::new(),
            plan: None,
            receipt: None,
            log: Vec::new(),
            log_truncated: false,
            cost: Cost { wall_us: 1, ..Cost::default() },
            started_ms: now,
            finished_ms: now,
        }
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

/// Connect and say hello. `source` is the local address, so that one process can hold
/// more connections than a port range.
async fn connect(backend: SocketAddr, source: Option<SocketAddr>, tls: &TlsConnector, hello: &Hello) -> Result<Socket> {
    let tcp = match source {
        Some(source) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(source)?;
            socket.connect(backend).await?
        }
        None => TcpStream::connect(backend).await?,
    };
    tcp.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from("localhost").map_err(Error::other)?;
    let stream = tls.connect(name, tcp).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(Some(viworks_protocol::frame::MAX_FRAME));
    let request = format!("wss://localhost:{}{}", backend.port(), viworks_protocol::PATH)
        .into_client_request()
        .map_err(Error::other)?;
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.map_err(Error::other)?;
    send(&mut socket, &GatewayFrame::Hello(hello.clone())).await?;
    Ok(socket)
}

async fn send(socket: &mut Socket, frame: &GatewayFrame) -> Result<()> {
    let text = serde_json::to_string(frame).map_err(Error::other)?;
    socket.send(Message::text(text)).await.map_err(Error::other)
}

/// Run one agent until its session ends for good. `gate` bounds the handshakes under way.
///
/// # Errors
/// When it can't connect or the backend breaks the protocol.
pub async fn run_agent(
    id: AgentId,
    backend: SocketAddr,
    source: Option<SocketAddr>,
    tls: TlsConnector,
    behaviour: Behaviour,
    answers: Arc<Answers>,
    gate: Arc<Semaphore>,
) -> Result<()> {
    let hello = Hello {
        receipt_key: None,
        protocol: viworks_protocol::VERSION,
        agent: id.clone(),
        version: "0.0.0-simulated".into(),
        boot: format!("{:016x}", now_ms()),
        site: Some("simulated".into()),
        labels: std::iter::once(("fleet".to_owned(), "simulated".to_owned())).collect(),
        max_concurrency: 4,
        plugins: Vec::new(),
    };
    let mut plugins = Plugins::default();
    loop {
        let hello = Hello { plugins: plugins.statuses(), ..hello.clone() };
        let permit = gate.acquire().await.map_err(Error::other)?;
        let socket = Box::pin(connect(backend, source, &tls, &hello)).await;
        drop(permit);
        let socket = socket.inspect_err(|_| {
            answers.counts.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let session = serve(socket, &id, behaviour, &answers, &mut plugins);
        let Behaviour::Reconnecting(every) = behaviour else { return session.await };
        // A cut session is what this behaviour is for, however it ended.
        let _ = tokio::time::timeout(every, session).await;
        answers.counts.disconnected.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serve(
    mut socket: Socket,
    id: &AgentId,
    behaviour: Behaviour,
    answers: &Answers,
    plugins: &mut Plugins,
) -> Result<()> {
    let counts = &answers.counts;
    while let Some(message) = socket.next().await {
        let text = match message.map_err(Error::other)? {
            Message::Text(text) => text,
            Message::Binary(chunk) => {
                for frame in plugins.take(&chunk, counts)? {
                    send(&mut socket, &frame).await?;
                }
                continue;
            }
            _ => continue,
        };
        match serde_json::from_str(&text).map_err(Error::other)? {
            BackendFrame::Welcome { .. } => {
                counts.connected.fetch_add(1, Ordering::Relaxed);
            }
            BackendFrame::Ping { nonce, .. } if behaviour != Behaviour::Dead => {
                send(&mut socket, &GatewayFrame::Pong { nonce }).await?;
            }
            BackendFrame::Invoke { order, .. } => {
                counts.invocations.fetch_add(1, Ordering::Relaxed);
                match behaviour {
                    Behaviour::Silent | Behaviour::Dead => continue,
                    Behaviour::Slow(wait) => tokio::time::sleep(wait).await,
                    Behaviour::Prompt | Behaviour::Reconnecting(_) => {}
                }
                let ordered = answers.order(&order)?;
                let invocation = InvocationId::derive(&ordered.warrant.command, &ordered.root, id);
                let report = answers.report(&ordered, &invocation, plugins);
                send(&mut socket, &GatewayFrame::Result { invocation, report }).await?;
                counts.results.fetch_add(1, Ordering::Relaxed);
            }
            BackendFrame::Ack { .. } => {
                counts.acks.fetch_add(1, Ordering::Relaxed);
            }
            BackendFrame::Goodbye { reason, .. } => return Err(Error::other(reason)),
            BackendFrame::Plugins { plugins: offers } if answers.fetch => {
                for frame in plugins.offered(offers) {
                    send(&mut socket, &frame).await?;
                }
            }
            BackendFrame::Ping { .. }
            | BackendFrame::Cancel { .. }
            | BackendFrame::Plugins { .. }
            | BackendFrame::Repository { .. }
            | BackendFrame::Metadata { .. } => {}
        }
    }
    Ok(())
}
