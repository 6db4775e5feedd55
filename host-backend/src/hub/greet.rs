//! From the upgrade to an admitted session: the first frame, who it says it is, and
//! whether the agent has another session. A second session is let in only when the first
//! does not answer a ping: so a copied certificate can't push a live agent out, and an
//! agent whose network failed is not kept out.

use futures_util::StreamExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use viworks_protocol::VERSION;
use viworks_protocol::frame::{BackendFrame, GatewayFrame, Hello};
use viworks_signing::keys::PublicKey;

use super::port::Port;
use super::rate::Rates;
use super::session::{self, Loop};
use super::wire::{self, Inbound, Opcode, Outbound, Socket};
use super::{Ended, Hub, Identity, Out, Session, text};
use crate::cluster::Held;
use crate::metrics::{Latency, Metrics};
use crate::store::write::{AgentHello, Note};

const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A live session answers a ping in this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const MAX_LABELS: usize = 64;
const MAX_PLUGINS: usize = 256;
const MAX_WORD: usize = 256;

/// Why a newcomer is refused.
struct Refused {
    rule: &'static str,
    detail: String,
    retry_after_secs: u32,
}

fn refused(rule: &'static str, detail: impl Into<String>, retry_after_secs: u32) -> Refused {
    Refused { rule, detail: detail.into(), retry_after_secs }
}

pub(super) async fn greet(
    port: Arc<Port>,
    socket: Socket,
    read: Vec<u8>,
    identity: Identity,
    from: (SocketAddr, Instant),
) {
    let (peer, began) = from;
    let (mut inbound, mut outbound) = wire::split(socket, read).await;
    let mut rates = Rates::default();
    let hello = match tokio::time::timeout(HELLO_WITHIN, hello(&port, &mut inbound, &mut rates, &identity)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(no)) => return refuse(&port, &identity, &mut outbound, no).await,
        Err(_) => return refuse(&port, &identity, &mut outbound, refused("hello", "no hello in time", 60)).await,
    };
    let receipt_key = match hello.receipt_key.as_deref().map(PublicKey::from_pem).transpose() {
        Ok(key) => key,
        Err(error) => {
            let no = refused("receipt-key", error.to_string(), 600);
            return refuse(&port, &identity, &mut outbound, no).await;
        }
    };
    let (session, queue) = port.hub.session_for(identity.agent.clone(), identity);
    if let Some(key) = receipt_key {
        // The only place where it is set.
        let _ = session.receipt_key.set(key);
    }
    if let Err(no) = admit(&port, &session).await {
        return refuse(&port, &session.identity, &mut outbound, no).await;
    }
    tracing::info!(agent = %session.agent, %peer, version = hello.version, "session opened");
    port.metrics.sessions_opened.inc();
    port.metrics.latencies.observe(Latency::Handshake, began.elapsed());
    let welcome = text(&BackendFrame::Welcome {
        protocol: VERSION,
        session: session.name(),
        time_ms: port.clock.now_ms(),
        heartbeat_secs: port.heartbeat_secs,
    });
    // The queue is empty and has room for all of them.
    let _ = session.push(Out::Frame(welcome));
    if let Some(news) = port.repository.as_ref().and_then(|repository| repository.current().news()) {
        let _ = session.push(Out::Frame(news));
    }
    session.offer(port.catalog.snapshot().offers(&session.agent));
    port.observer.hello(&hello.agent, &hello.plugins);
    let note = Note::Hello(Box::new(AgentHello {
        agent: hello.agent,
        version: hello.version,
        boot: hello.boot,
        site: hello.site,
        labels: hello.labels,
        max_concurrency: hello.max_concurrency,
        plugins: hello.plugins.into_iter().filter(|status| !status.shadow).collect(),
        receipt_key: receipt_key.and_then(|key| Some((key.id(), key.to_pem().ok()?))),
        owner: port.hub.owner(&session),
        at_ms: session.since_ms,
    }));
    if port.store.note(note).await.is_err() {
        tracing::error!(agent = %session.agent, "the store is closed");
    }
    // A task of its own: this one's future, made large by the handshake, goes.
    let tracker = port.background.tracker().clone();
    tracker.spawn(session::run(Loop { port, session, inbound, outbound, queue, rates }));
}

async fn hello(
    port: &Port,
    inbound: &mut WebSocketStream<Inbound>,
    rates: &mut Rates,
    identity: &Identity,
) -> Result<Hello, Refused> {
    let message = match inbound.next().await {
        Some(Ok(Message::Text(text))) => text,
        Some(Ok(_)) => return Err(refused("hello", "the first frame is no text", 60)),
        Some(Err(error)) => return Err(refused("hello", error.to_string(), 60)),
        None => return Err(refused("hello", "closed before a hello", 60)),
    };
    let frame: GatewayFrame = serde_json::from_str(&message).map_err(|e| refused("malformed", e.to_string(), 300))?;
    rates.take(&frame, message.len(), port.clock.now_ms()).map_err(|e| refused("bounds", e.to_string(), 300))?;
    let GatewayFrame::Hello(hello) = frame else {
        return Err(refused("hello", "the first frame is no hello", 60));
    };
    if hello.protocol != VERSION {
        let detail = format!("protocol {} is spoken, {VERSION} is wanted", hello.protocol);
        return Err(refused("protocol", detail, 600));
    }
    if hello.agent != identity.agent {
        let detail = format!("the hello names {}, the certificate {}", hello.agent, identity.agent);
        return Err(refused("identity-mismatch", detail, 600));
    }
    let words = hello.labels.iter().flat_map(|(k, v)| [k, v]).chain([&hello.version, &hello.boot]).chain(&hello.site);
    let long = words.into_iter().any(|word| word.len() > MAX_WORD);
    if long || hello.labels.len() > MAX_LABELS || hello.plugins.len() > MAX_PLUGINS {
        return Err(refused("bounds", "too many or too long labels or plugins", 600));
    }
    Ok(hello)
}

/// Enter the session in the hub's table.
async fn admit(port: &Port, session: &Arc<Session>) -> Result<(), Refused> {
    let other = port.hub.session(&session.agent);
    if let Some(other) = &other {
        if port.hub.answers(other).await {
            return Err(refused("second-session", "another session of this agent is live", 30));
        }
        other.end(Ended { reason: "replaced", retry_after_secs: 0 });
        port.engine.disconnected(&session.agent);
    }
    // In the store first: until it is there, nothing is sent to it.
    match port.cluster.enter(&session.agent, session.serial).await {
        Ok(()) => {}
        Err(Held::Live) => return Err(refused("second-session", Held::Live.to_string(), 30)),
        Err(held) => return Err(refused("unavailable", held.to_string(), 5)),
    }
    match port.hub.enter(session, other.map(|other| other.serial)) {
        Ok(()) => Ok(()),
        Err(quicker) => {
            // What is in the store is that one's again.
            let _ = port.cluster.enter(&quicker.agent, quicker.serial).await;
            Err(refused("second-session", "another session was quicker", 30))
        }
    }
}

impl Hub {
    /// Whether a session answers a ping, now.
    pub(crate) async fn answers(&self, session: &Session) -> bool {
        let before = session.pongs.load(Ordering::Relaxed);
        let (nonce, time_ms) = (self.nonce(), self.inner.clock.now_ms());
        session.expect(nonce);
        if session.push(Out::Frame(text(&BackendFrame::Ping { nonce, time_ms }))).is_err() {
            return false;
        }
        let answered = async {
            loop {
                let told = session.answered.notified();
                if session.pongs.load(Ordering::Relaxed) != before {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answered).await.is_ok()
    }
}

async fn refuse(port: &Port, identity: &Identity, outbound: &mut Outbound, no: Refused) {
    port.refuse(identity, no.rule, &no.detail).await;
    Metrics::count(&port.metrics.sessions_closed, no.rule);
    let goodbye = text(&BackendFrame::Goodbye { reason: no.rule.to_owned(), retry_after_secs: no.retry_after_secs });
    // Who does not take it learns it from the closing.
    let _ = outbound.send(Opcode::Text, goodbye.as_bytes()).await;
    let _ = outbound.close(1008).await;
}
