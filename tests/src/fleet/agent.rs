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
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::merkle::Hash;
use viworks_protocol::outcome::{Cost, Outcome, Report};
use viworks_protocol::warrant::{Order, Warrant};

use super::Counts;

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
    last: Mutex<Option<(String, CommandId, Hash)>>,
    pub counts: Counts,
}

impl Answers {
    /// Answer with this JSON.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn new(result: &str) -> Result<Self> {
        let result = RawValue::from_string(result.to_owned()).map_err(Error::other)?;
        Ok(Self { result, last: Mutex::new(None), counts: Counts::default() })
    }

    /// The invocation's id, read from the warrant: a simulator trusts its backend.
    fn invocation(&self, order: &Order, agent: &AgentId) -> Result<InvocationId> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((payload, command, root)) = last.as_ref()
            && *payload == order.warrant.payload
        {
            return Ok(InvocationId::derive(command, root, agent));
        }
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&order.warrant.payload).map_err(Error::other)?;
        let warrant: Warrant = serde_json::from_slice(&bytes).map_err(Error::other)?;
        let mut root = Hash::default();
        hex::decode_to_slice(&warrant.targets_root, &mut root).map_err(Error::other)?;
        let id = InvocationId::derive(&warrant.command, &root, agent);
        *last = Some((order.warrant.payload.clone(), warrant.command, root));
        Ok(id)
    }

    fn report(&self) -> Report {
        let now = now_ms();
        Report {
            outcome: Outcome::Succeeded,
            result: Some(self.result.clone()),
            failure: None,
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
    loop {
        let permit = gate.acquire().await.map_err(Error::other)?;
        let socket = Box::pin(connect(backend, source, &tls, &hello)).await;
        drop(permit);
        let socket = socket.inspect_err(|_| {
            answers.counts.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let session = serve(socket, &id, behaviour, &answers);
        let Behaviour::Reconnecting(every) = behaviour else { return session.await };
        // A cut session is what this behaviour is for, however it ended.
        let _ = tokio::time::timeout(every, session).await;
        answers.counts.disconnected.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serve(mut socket: Socket, id: &AgentId, behaviour: Behaviour, answers: &Answers) -> Result<()> {
    let counts = &answers.counts;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(Error::other)? else { continue };
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
                let invocation = answers.invocation(&order, id)?;
                send(&mut socket, &GatewayFrame::Result { invocation, report: answers.report() }).await?;
                counts.results.fetch_add(1, Ordering::Relaxed);
            }
            BackendFrame::Ack { .. } => {
                counts.acks.fetch_add(1, Ordering::Relaxed);
            }
            BackendFrame::Goodbye { reason, .. } => return Err(Error::other(reason)),
            BackendFrame::Ping { .. }
            | BackendFrame::Cancel { .. }
            | BackendFrame::Plugins { .. }
            | BackendFrame::Repository { .. }
            | BackendFrame::Metadata { .. } => {}
        }
    }
    Ok(())
}
