//! One simulated gateway: hello, pongs, and an answer to every order. One that stays comes back
//! as a real one does, and keeps what it did.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, client::IntoClientRequest as _};
use viworks_protocol::frame::{BackendFrame, GatewayFrame, Hello};
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::merkle::Hash;
use viworks_protocol::outcome::{Cost, Failure, Outcome, Report};
use viworks_protocol::warrant::{Order, Warrant};

use super::Counts;
use super::memory::{Memory, Pause};
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
    /// Whether agents come back when their session ends.
    stay: bool,
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
        Ok(Self { result, last: Mutex::new(None), fetch: false, stay: false, fail: Vec::new(), counts })
    }

    /// Fetch offered plugins, and let so many of a hundred invocations of a release fail.
    #[must_use]
    pub fn with_plugins(self, fail: Vec<(String, u32)>) -> Self {
        Self { fetch: true, fail, ..self }
    }

    /// Come back when a session ends or none comes about, as gateways do.
    #[must_use]
    pub fn that_stay(self) -> Self {
        Self { stay: true, ..self }
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
            shadow: None,
            log: Vec::new(),
            log_truncated: false,
            timings: Vec::new(),
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

/// How an attempt or a session ended.
#[derive(Debug)]
struct End {
    error: Error,
    /// When the backend wants to see the agent again.
    asked: Option<Duration>,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self { error, asked: None }
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> End {
    Error::other(error).into()
}

/// Connect and say hello. `source` is the local address, so that one process can hold
/// more connections than a port range.
async fn connect(
    backend: SocketAddr,
    source: Option<SocketAddr>,
    tls: &TlsConnector,
    hello: &Hello,
) -> std::result::Result<Socket, End> {
    let tcp = match source {
        Some(source) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(source)?;
            socket.connect(backend).await?
        }
        None => TcpStream::connect(backend).await?,
    };
    tcp.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from("localhost").map_err(other)?;
    let stream = tls.connect(name, tcp).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(Some(viworks_protocol::frame::MAX_FRAME));
    let request =
        format!("wss://localhost:{}{}", backend.port(), viworks_protocol::PATH).into_client_request().map_err(other)?;
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (mut socket, _) = upgraded.map_err(|error| {
        let asked = match &error {
            WsError::Http(answer) => answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()),
            _ => None,
        };
        End { error: Error::other(error), asked: asked.map(Duration::from_secs) }
    })?;
    send(&mut socket, &GatewayFrame::Hello(hello.clone())).await?;
    Ok(socket)
}

async fn send(socket: &mut Socket, frame: &GatewayFrame) -> Result<()> {
    say(socket, serde_json::to_string(frame).map_err(Error::other)?).await
}

async fn say(socket: &mut Socket, text: String) -> Result<()> {
    socket.send(Message::text(text)).await.map_err(Error::other)
}

/// Run one agent until its session ends for good. `gate` bounds the handshakes under way.
///
/// # Errors
/// When it can't connect or the backend breaks the protocol, and it does not stay.
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
    let counts = &answers.counts;
    let (mut plugins, mut memory, mut pause) = (Plugins::default(), Memory::default(), Pause::default());
    loop {
        let hello = Hello { plugins: plugins.statuses(), ..hello.clone() };
        let permit = gate.acquire().await.map_err(Error::other)?;
        let attempt = tokio::time::timeout(CONNECT, Box::pin(connect(backend, source, &tls, &hello)));
        let attempt = attempt.await.unwrap_or_else(|_| Err(Error::from(std::io::ErrorKind::TimedOut).into()));
        drop(permit);
        let socket = match attempt {
            Ok(socket) => socket,
            Err(End { error, asked }) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                if !answers.stay {
                    return Err(error);
                }
                tokio::time::sleep(pause.next(Duration::ZERO, asked)).await;
                continue;
            }
        };
        let began = Instant::now();
        let mut agent = Agent { id: &id, behaviour, answers: &answers, plugins: &mut plugins, memory: &mut memory };
        let session = agent.serve(socket);
        let ended = match behaviour {
            // A cut session is what this behaviour is for, however it ended.
            Behaviour::Reconnecting(every) => tokio::time::timeout(every, session).await.unwrap_or(Ok(())),
            _ => session.await,
        };
        match (ended, behaviour) {
            (_, Behaviour::Reconnecting(_)) => {
                counts.disconnected.fetch_add(1, Ordering::Relaxed);
            }
            (ended, _) if answers.stay => {
                counts.disconnected.fetch_add(1, Ordering::Relaxed);
                let asked = ended.err().and_then(|end| end.asked);
                tokio::time::sleep(pause.next(began.elapsed(), asked)).await;
            }
            (ended, _) => return ended.map_err(|end| end.error),
        }
    }
}

/// From the first packet to the WebSocket's answer, as in the gateway.
const CONNECT: Duration = Duration::from_secs(10);

/// What is one agent's, for as long as a session lasts.
struct Agent<'a> {
    id: &'a AgentId,
    behaviour: Behaviour,
    answers: &'a Answers,
    plugins: &'a mut Plugins,
    memory: &'a mut Memory,
}

/// Counts a session for as long as it lasts, however it ends.
struct Online<'a>(&'a AtomicU64);

impl Drop for Online<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Agent<'_> {
    async fn serve(&mut self, mut socket: Socket) -> std::result::Result<(), End> {
        let counts = &self.answers.counts;
        let mut silence = Duration::from_secs(600);
        let mut online = None;
        loop {
            let next = tokio::time::timeout(silence, socket.next()).await;
            let Some(message) = next.map_err(|_| Error::from(std::io::ErrorKind::TimedOut))? else { return Ok(()) };
            let text = match message.map_err(other)? {
                Message::Text(text) => text,
                Message::Binary(chunk) => {
                    for frame in self.plugins.take(&chunk, counts)? {
                        send(&mut socket, &frame).await?;
                    }
                    continue;
                }
                _ => continue,
            };
            match serde_json::from_str(&text).map_err(other)? {
                BackendFrame::Welcome { heartbeat_secs, .. } => {
                    counts.connected.fetch_add(1, Ordering::Relaxed);
                    counts.online.fetch_add(1, Ordering::Relaxed);
                    online.get_or_insert(Online(&counts.online));
                    if self.answers.stay {
                        silence = Duration::from_millis(u64::from(heartbeat_secs) * 2_500);
                    }
                    for text in self.memory.unacknowledged() {
                        say(&mut socket, text).await?;
                    }
                }
                BackendFrame::Ping { nonce, .. } if self.behaviour != Behaviour::Dead => {
                    send(&mut socket, &GatewayFrame::Pong { nonce }).await?;
                }
                BackendFrame::Invoke { order, .. } => self.invoke(&mut socket, &order).await?,
                BackendFrame::Ack { invocation } => {
                    self.memory.acknowledged(&invocation);
                    counts.acks.fetch_add(1, Ordering::Relaxed);
                }
                BackendFrame::Goodbye { reason, retry_after_secs } => {
                    let asked = Some(Duration::from_secs(retry_after_secs.into()));
                    return Err(End { error: Error::other(reason), asked });
                }
                BackendFrame::Plugins { plugins: offers } if self.answers.fetch => {
                    for frame in self.plugins.offered(offers) {
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
    }

    /// Answer an order; one that is known, as before.
    async fn invoke(&mut self, socket: &mut Socket, order: &Order) -> std::result::Result<(), End> {
        let counts = &self.answers.counts;
        counts.invocations.fetch_add(1, Ordering::Relaxed);
        match self.behaviour {
            Behaviour::Silent | Behaviour::Dead => return Ok(()),
            Behaviour::Slow(wait) => tokio::time::sleep(wait).await,
            Behaviour::Prompt | Behaviour::Reconnecting(_) => {}
        }
        let ordered = self.answers.order(order)?;
        let invocation = InvocationId::derive(&ordered.warrant.command, &ordered.root, self.id);
        let text = match self.memory.known(&invocation) {
            Some(text) => {
                counts.repeated.fetch_add(1, Ordering::Relaxed);
                text
            }
            None => {
                let report = self.answers.report(&ordered, &invocation, self.plugins);
                let frame = GatewayFrame::Result { invocation: invocation.clone(), report };
                let text = serde_json::to_string(&frame).map_err(other)?;
                self.memory.did(invocation, text.clone());
                counts.executed.fetch_add(1, Ordering::Relaxed);
                text
            }
        };
        say(socket, text).await?;
        counts.results.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
