//! One session's loop: frames in, frames out, until one side ends it. Small on purpose:
//! there is one for every agent, and most of the time it waits.

use futures_util::StreamExt as _;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use viworks_protocol::chunk::Chunk;
use viworks_protocol::frame::{BackendFrame, GatewayFrame};

use super::port::Port;
use super::rate::Rates;
use super::wire::{Inbound, Opcode, Outbound};
use super::{Ended, Out, PartJob, Session, frames, text};
use crate::metrics::Metrics;
use crate::store::write::Note;

/// Bytes of a plugin in one frame: little enough that an invocation behind it hardly waits.
const CHUNK: usize = 32 * 1024;
/// Parts that one agent fetches at the same time.
const PARTS: usize = 4;
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Loop {
    pub port: Arc<Port>,
    pub session: Arc<Session>,
    pub inbound: WebSocketStream<Inbound>,
    pub outbound: Outbound,
    pub queue: mpsc::Receiver<Out>,
    pub rates: Rates,
}

pub(super) async fn run(of: Loop) {
    let Loop { port, session, inbound, mut outbound, mut queue, rates } = of;
    let ended = tokio::select! {
        ended = read(&port, &session, inbound, rates) => ended,
        ended = write(&port, &mut outbound, &mut queue) => ended,
        () = session.end.cancelled() => session.ended().unwrap_or(Ended { reason: "ended", retry_after_secs: 0 }),
        () = port.background.token().cancelled() => Ended { reason: "shutdown", retry_after_secs: 2 },
    };
    if port.hub.leave(&session) {
        port.engine.disconnected(&session.agent);
        port.cluster.left(&session.agent, session.serial);
        let note =
            Note::Gone { agent: session.agent.clone(), owner: port.hub.owner(&session), at_ms: port.clock.now_ms() };
        if port.store.note(note).await.is_err() {
            tracing::error!(agent = %session.agent, "the store is closed");
        }
    }
    Metrics::count(&port.metrics.sessions_closed, ended.reason);
    let lasted = port.clock.now_ms().saturating_sub(session.since_ms);
    port.metrics.latencies.session(ended.reason, Duration::from_millis(lasted));
    tracing::info!(agent = %session.agent, reason = ended.reason, "session closed");
    let Ended { reason, retry_after_secs } = ended;
    let goodbye = text(&BackendFrame::Goodbye { reason: reason.to_owned(), retry_after_secs });
    let last = async {
        outbound.send(Opcode::Text, goodbye.as_bytes()).await?;
        outbound.close(1000).await
    };
    // A peer that is gone takes neither; the socket closes when this returns.
    let _ = tokio::time::timeout(GOODBYE_WITHIN, last).await;
}

async fn read(port: &Port, session: &Session, mut inbound: WebSocketStream<Inbound>, mut rates: Rates) -> Ended {
    Box::pin(port.engine.connected(&session.agent)).await;
    loop {
        let message = match inbound.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return broken(port, session, &error).await,
            None => return Ended { reason: "closed", retry_after_secs: 0 },
        };
        let frame = match message {
            Message::Text(text) => frame(port, &mut rates, &text),
            Message::Ping(data) => {
                // Answered here, since tungstenite's own answer is not written.
                let _ = session.push(Out::Pong(data));
                continue;
            }
            Message::Pong(_) => continue,
            Message::Close(_) => return Ended { reason: "closed", retry_after_secs: 0 },
            Message::Binary(_) | Message::Frame(_) => Err(("malformed", "no gateway sends binary frames".to_owned())),
        };
        // Boxed: what a frame sets in motion is large, and an idle session should not be.
        let done = match frame {
            Ok(frame) => Box::pin(frames::handle(port, session, frame)).await,
            Err(no) => Err(no),
        };
        if let Err((rule, detail)) = done {
            Box::pin(port.refuse(&session.identity, rule, &detail)).await;
            return Ended { reason: rule, retry_after_secs: 60 };
        }
    }
}

fn frame(port: &Port, rates: &mut Rates, text: &str) -> Result<GatewayFrame, (&'static str, String)> {
    let frame: GatewayFrame = serde_json::from_str(text).map_err(|e| ("malformed", e.to_string()))?;
    let kind = rates.take(&frame, text.len(), port.clock.now_ms()).map_err(|e| ("bounds", e.to_string()))?;
    Metrics::count(&port.metrics.frames, kind);
    Ok(frame)
}

/// A frame that is larger than any may be, or a break of the protocol, is a refusal; a
/// lost connection is none.
async fn broken(port: &Port, session: &Session, error: &tokio_tungstenite::tungstenite::Error) -> Ended {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    let rule = match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            return Ended { reason: "lost", retry_after_secs: 0 };
        }
        Error::Capacity(_) => "bounds",
        Error::Protocol(_) | Error::Utf8(_) => "malformed",
        _ => return Ended { reason: "lost", retry_after_secs: 0 },
    };
    Box::pin(port.refuse(&session.identity, rule, &error.to_string())).await;
    Ended { reason: rule, retry_after_secs: 60 }
}

/// Frames first; parts of plugins, a chunk at a time, when no frame waits.
async fn write(port: &Port, outbound: &mut Outbound, queue: &mut mpsc::Receiver<Out>) -> Ended {
    let lost = Ended { reason: "lost", retry_after_secs: 0 };
    let mut parts: VecDeque<Box<PartJob>> = VecDeque::new();
    loop {
        let next = match queue.try_recv() {
            Ok(out) => Some(out),
            Err(_) if !parts.is_empty() => None,
            Err(_) => {
                if outbound.flush().await.is_err() {
                    return lost;
                }
                match queue.recv().await {
                    Some(out) => Some(out),
                    None => return lost,
                }
            }
        };
        let sent = match next {
            Some(Out::Frame(text)) => outbound.send(Opcode::Text, text.as_bytes()).await,
            Some(Out::Pong(data)) => outbound.send(Opcode::Pong, &data).await,
            Some(Out::Part(job)) => {
                // Asked for again: from the new offset.
                parts.retain(|p| (p.digest, p.part) != (job.digest, job.part));
                if parts.len() < PARTS {
                    parts.push_back(job);
                }
                Ok(())
            }
            None => match parts.pop_front() {
                Some(job) => chunk(port, outbound, job, &mut parts).await,
                None => Ok(()),
            },
        };
        if sent.is_err() {
            return lost;
        }
    }
}

async fn chunk(
    port: &Port,
    outbound: &mut Outbound,
    mut job: Box<PartJob>,
    parts: &mut VecDeque<Box<PartJob>>,
) -> std::io::Result<()> {
    let total = job.bytes.len();
    let from = (job.offset as usize).min(total);
    let to = (from + CHUNK).min(total);
    let frame = Chunk {
        part: job.part,
        digest: job.digest,
        offset: job.offset,
        total: u32::try_from(total).unwrap_or(u32::MAX),
        bytes: job.bytes.slice(from..to),
    }
    .encode();
    job.offset = u32::try_from(to).unwrap_or(u32::MAX);
    if to < total {
        parts.push_back(job);
    }
    port.metrics.chunks.inc();
    outbound.send(Opcode::Binary, &frame).await?;
    // Flushed each: what comes meanwhile goes before the next.
    outbound.flush().await
}
