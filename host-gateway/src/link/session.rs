//! One session: hello and welcome, then both directions side by side until one ends. What
//! the backend says is checked and handed on; what waits is said; silence ends it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use viworks_protocol::frame::{BackendFrame, GatewayFrame};
use viworks_protocol::trace::TraceContext;

use super::Link;
use super::connect::Socket;
use super::incoming::{FrameError, Incoming, parse, parse_chunk};
use super::outgoing::text;
use super::rates::Rates;

/// From `Hello` to `Welcome`.
const WELCOME: Duration = Duration::from_secs(10);

/// How long the peer may leave a write waiting.
const WRITE: Duration = Duration::from_secs(30);

/// How long a parting word may take.
const PARTING: Duration = Duration::from_secs(2);

/// Frames written before one flush.
const BATCH: usize = 64;

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// From the welcome on.
    pub(super) lasted: Duration,
    pub(super) why: Why,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("the gateway stops")]
    Stopped,
    #[error("the backend said goodbye: {reason}")]
    Goodbye { reason: String, retry_after: Duration },
    #[error("the backend closed the connection")]
    Closed,
    #[error("nothing was heard for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("the backend takes nothing any more")]
    Stuck,
    #[error("a frame was refused")]
    Frame(#[from] FrameError),
    #[error("the backend speaks protocol {0}")]
    Protocol(u32),
    #[error("the connection failed")]
    WebSocket(#[source] Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for Why {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

impl Why {
    /// Whether what the backend sent was against the rules.
    pub(super) fn is_refusal(&self) -> bool {
        use tungstenite::Error as E;
        match self {
            Self::Frame(_) | Self::Protocol(_) => true,
            Self::WebSocket(e) => matches!(**e, E::Capacity(_) | E::Utf8(_) | E::AttackAttempt),
            _ => false,
        }
    }

    fn close_code(&self) -> CloseCode {
        match self {
            Self::Stopped => CloseCode::Away,
            Self::Frame(FrameError::Size { .. }) => CloseCode::Size,
            Self::WebSocket(e) if matches!(**e, tungstenite::Error::Capacity(_)) => CloseCode::Size,
            why if why.is_refusal() => CloseCode::Policy,
            _ => CloseCode::Normal,
        }
    }
}

/// What the welcome said.
struct Welcome {
    session: String,
    /// The longest silence of a living backend.
    silence: Duration,
}

/// Hold a session on `socket` until it ends.
pub(super) async fn run(mut socket: Socket, link: &Link, stop: &CancellationToken) -> Ended {
    let welcome = match timeout(WELCOME, handshake(&mut socket, link)).await {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(why)) => return part(socket, Ended { lasted: Duration::ZERO, why }).await,
        Err(_) => return part(socket, Ended { lasted: Duration::ZERO, why: Why::Silent(WELCOME) }).await,
    };
    link.outgoing.begin();
    link.state.connected(&welcome.session, link.clock.now_ms());
    tracing::info!(target: "audit", decision = "accepted", session = %welcome.session, "session up");
    tracing::info!(session = %welcome.session, "connected");

    let since = Instant::now();
    let (mut sink, mut stream) = socket.split();
    let why = tokio::select! {
        why = listen(&mut stream, link, welcome.silence) => why,
        why = speak(&mut sink, link) => why,
        () = stop.cancelled() => Why::Stopped,
    };
    link.outgoing.end();
    let _ = link.incoming.send(Incoming::Disconnected).await;

    let ended = Ended { lasted: since.elapsed(), why };
    match sink.reunite(stream) {
        Ok(socket) => part(socket, ended).await,
        Err(_) => ended,
    }
}

async fn handshake(socket: &mut Socket, link: &Link) -> Result<Welcome, Why> {
    let hello = link.hello().await;
    let sent = Instant::now();
    socket.send(Message::Text(text(&GatewayFrame::Hello(hello)))).await?;
    loop {
        match socket.next().await.ok_or(Why::Closed)?? {
            Message::Text(frame) => match parse(&frame)? {
                BackendFrame::Welcome { protocol, session, time_ms, heartbeat_secs } => {
                    if protocol != viworks_protocol::VERSION {
                        return Err(Why::Protocol(protocol));
                    }
                    link.clock.learn(time_ms, sent.elapsed());
                    let heartbeat = Duration::from_secs(heartbeat_secs.clamp(1, 300).into());
                    return Ok(Welcome { session, silence: heartbeat * 5 / 2 });
                }
                BackendFrame::Goodbye { reason, retry_after_secs } => return Err(goodbye(reason, retry_after_secs)),
                other => return Err(FrameError::Turn(other.bounds().kind).into()),
            },
            Message::Binary(_) => return Err(FrameError::Turn("binary").into()),
            Message::Close(_) => return Err(Why::Closed),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn goodbye(reason: String, retry_after_secs: u32) -> Why {
    Why::Goodbye { reason, retry_after: Duration::from_secs(retry_after_secs.into()) }
}

async fn listen(stream: &mut SplitStream<Socket>, link: &Link, silence: Duration) -> Why {
    let mut rates = Rates::new();
    loop {
        let message = match timeout(silence, stream.next()).await {
            Err(_) => return Why::Silent(silence),
            Ok(None) => return Why::Closed,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(message))) => message,
        };
        if let Err(why) = hear(message, &mut rates, link).await {
            return why;
        }
    }
}

/// One message of the backend.
async fn hear(message: Message, rates: &mut Rates, link: &Link) -> Result<(), Why> {
    let heard = match message {
        Message::Text(frame) => match counted(&frame, rates)? {
            BackendFrame::Ping { nonce, time_ms } => {
                link.clock.advance(time_ms);
                link.outgoing.pong(nonce);
                return Ok(());
            }
            // A gateway that drains takes no orders: the backend delivers them again.
            BackendFrame::Invoke { .. } if link.draining.is_cancelled() => return Ok(()),
            BackendFrame::Invoke { proof, order, trace } => match link.judge.judge(&order, &proof) {
                Ok(warrant) => {
                    let trace = trace.as_deref().and_then(TraceContext::parse);
                    Some(Incoming::Run(Box::new(warrant), trace))
                }
                Err(unlawful) => {
                    link.state.orders_refused.fetch_add(1, Ordering::Relaxed);
                    unlawful.answer()
                }
            },
            BackendFrame::Cancel { invocation } => Some(Incoming::Cancel(invocation)),
            BackendFrame::Ack { invocation } => Some(Incoming::Acknowledged(invocation)),
            BackendFrame::Plugins { plugins } => Some(Incoming::Offers(plugins)),
            BackendFrame::Repository { timestamp } => Some(Incoming::Repository(timestamp)),
            BackendFrame::Metadata { name, text } => Some(Incoming::Metadata { name, text }),
            BackendFrame::Goodbye { reason, retry_after_secs } => return Err(goodbye(reason, retry_after_secs)),
            BackendFrame::Welcome { .. } => return Err(FrameError::Turn("welcome").into()),
        },
        Message::Binary(frame) => {
            rates.chunk()?;
            Some(Incoming::Chunk(parse_chunk(&frame)?))
        }
        Message::Close(_) => return Err(Why::Closed),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
    };
    match heard {
        // The receiver lives as long as the program.
        Some(incoming) => link.incoming.send(incoming).await.map_err(|_| Why::Stopped),
        None => Ok(()),
    }
}

fn counted(text: &str, rates: &mut Rates) -> Result<BackendFrame, FrameError> {
    let frame = parse(text)?;
    rates.frame(&frame)?;
    Ok(frame)
}

async fn speak(sink: &mut SplitSink<Socket, Message>, link: &Link) -> Why {
    loop {
        let first = link.outgoing.next().await;
        match timeout(WRITE, write(sink, first, link)).await {
            Err(_) => return Why::Stuck,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
        }
    }
}

/// A frame, what else waits, and one flush.
async fn write(sink: &mut SplitSink<Socket, Message>, first: Utf8Bytes, link: &Link) -> Result<(), tungstenite::Error> {
    sink.feed(Message::Text(first)).await?;
    for _ in 1..BATCH {
        let Some(frame) = link.outgoing.try_next() else { break };
        sink.feed(Message::Text(frame)).await?;
    }
    sink.flush().await
}

/// Say why, if the other side still listens.
async fn part(mut socket: Socket, ended: Ended) -> Ended {
    if !matches!(ended.why, Why::Closed | Why::Silent(_) | Why::Stuck) {
        let reason = ended.why.to_string().chars().take(100).collect::<String>();
        let close = CloseFrame { code: ended.why.close_code(), reason: reason.into() };
        let _ = timeout(PARTING, socket.close(Some(close))).await;
    }
    ended
}
