//! The link against a small TLS WebSocket server with certificates of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{ExtendedKeyUsagePurpose as Usage, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use viworks_protocol::chunk::{Chunk, Part};
use viworks_protocol::frame::{BackendFrame, GatewayFrame, MAX_FRAME};
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{Outcome, Report};

use super::*;
use crate::config::provider;
use crate::config::tests::{Authority, Bench};
use crate::journal::Journal;

const SOON: Duration = Duration::from_secs(10);
pub(crate) const TIME: u64 = 1_900_000_000_000;

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("it happens in time")
}

/// The other side: accepts sessions one by one.
pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
}

pub(crate) struct Peer(WebSocketStream<TlsStream<TcpStream>>);

impl Server {
    /// A server whose certificate `authority` issued and that takes clients of `clients`.
    pub(crate) async fn new(authority: &Authority, clients: &Authority) -> (Self, u16, String) {
        let name = SanType::DnsName("localhost".try_into().unwrap());
        let issued = authority.issue(vec![name], Usage::ServerAuth, |_| ());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self { listener, tls: TlsAcceptor::from(Arc::new(tls)) }, port, issued.pin)
    }

    pub(crate) async fn accept(&self) -> Option<Peer> {
        let (tcp, _) = soon(self.listener.accept()).await.unwrap();
        let tls = soon(self.tls.accept(tcp)).await.ok()?;
        soon(tokio_tungstenite::accept_async(tls)).await.ok().map(Peer)
    }

    /// Accept, read the hello and welcome.
    pub(crate) async fn welcome(&self, heartbeat_secs: u32) -> Peer {
        let mut peer = self.accept().await.unwrap();
        assert!(matches!(peer.hear().await, Some(GatewayFrame::Hello(hello)) if hello.agent.as_str() == "web-01"));
        let protocol = viworks_protocol::VERSION;
        peer.say(&BackendFrame::Welcome { protocol, session: "s-1".into(), time_ms: TIME, heartbeat_secs }).await;
        peer
    }
}

impl Peer {
    pub(crate) async fn say(&mut self, frame: &BackendFrame) {
        self.send(Message::text(serde_json::to_string(frame).unwrap())).await;
    }

    pub(crate) async fn text(&mut self, frame: &str) {
        self.send(Message::text(frame)).await;
    }

    pub(crate) async fn chunk(&mut self, chunk: &Chunk) {
        self.send(Message::Binary(chunk.encode())).await;
    }

    async fn send(&mut self, message: Message) {
        // The other side may be gone already: what follows shows it.
        let _ = soon(self.0.send(message)).await;
    }

    pub(crate) async fn hear(&mut self) -> Option<GatewayFrame> {
        loop {
            match soon(self.0.next()).await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            if let Message::Close(frame) = soon(self.0.next()).await?.ok()? {
                return frame.map(|f| f.code.into());
            }
        }
    }
}

/// What the executor would keep.
type Kept = Arc<Mutex<Vec<(InvocationId, Arc<Report>)>>>;

/// A running link and all its ends.
struct Running {
    bench: Bench,
    server: Server,
    journal: Journal,
    kept: Kept,
    outgoing: Outgoing,
    incoming: mpsc::Receiver<Incoming>,
    state: Arc<LinkState>,
    clock: Clock,
    draining: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What differs from a backend as it should be.
#[derive(Default)]
struct Wrong {
    authority: bool,
    pin: bool,
}

async fn start(wrong: Wrong) -> Running {
    let mut bench = Bench::new();
    let other = Authority::new();
    let authority = if wrong.authority { &other } else { &bench.authority };
    let (server, port, pin) = Server::new(authority, &bench.authority).await;
    bench.set("backend_url", &format!("wss://localhost:{port}"));
    if !wrong.pin {
        bench.set("backend_spki_pin", &pin);
    }
    let config = bench.load().unwrap();
    let journal = Journal::open(bench.dir.path()).unwrap();
    let kept = Kept::default();
    let given = Arc::clone(&kept);
    let outgoing = Outgoing::new(journal.clone(), Box::new(move || given.lock().unwrap().clone()));
    let (incoming_to, incoming) = mpsc::channel(INCOMING);
    let (clock, draining, stop) = (Clock::default(), CancellationToken::new(), CancellationToken::new());
    let none: Plugins = Box::new(Vec::new);
    let loaded = CancellationToken::new();
    loaded.cancel();
    let mut link =
        Link::new(&config, clock.clone(), none, loaded, outgoing.clone(), incoming_to, draining.clone()).unwrap();
    link.backoff = Backoff::starting_at(Duration::from_millis(2));
    let state = link.state();
    let task = tokio::spawn(link.run(stop.clone()));
    Running { bench, server, journal, kept, outgoing, incoming, state, clock, draining, stop, task }
}

impl Running {
    /// The next thing handed on that is not the end of a session.
    async fn handed_on(&mut self) -> Incoming {
        loop {
            match soon(self.incoming.recv()).await.unwrap() {
                Incoming::Disconnected => {}
                other => return other,
            }
        }
    }

    async fn last_error(&self, part: &str) {
        let mut watch = self.state.watch();
        let seen = timeout(SOON, watch.wait_for(|s| s.last_error.as_ref().is_some_and(|e| e.contains(part)))).await;
        assert!(seen.is_ok(), "{:?}", self.state.status());
    }
}

fn id(n: u32) -> InvocationId {
    format!("inv-{n:032x}").parse().unwrap()
}

fn report(text: &str) -> Report {
    Report::refused(Outcome::Failed, "failed", text, 1)
}

#[tokio::test]
async fn a_good_session_answers_pings_and_learns_the_time() {
    let mut running = start(Wrong::default()).await;
    let mut peer = running.server.welcome(20).await;
    peer.say(&BackendFrame::Ping { nonce: 7, time_ms: TIME + 90_000 }).await;
    assert!(matches!(peer.hear().await, Some(GatewayFrame::Pong { nonce: 7 })));
    assert!((TIME + 90_000..TIME + 100_000).contains(&running.clock.now_ms()));
    assert_eq!(running.state.status().session.as_deref(), Some("s-1"));

    peer.say(&BackendFrame::Cancel { invocation: id(1) }).await;
    assert!(matches!(running.handed_on().await, Incoming::Cancel(i) if i == id(1)));
    peer.say(&BackendFrame::Ack { invocation: id(2) }).await;
    assert!(matches!(running.handed_on().await, Incoming::Acknowledged(i) if i == id(2)));
    let chunk =
        Chunk { part: Part::Component, digest: [3; 32], offset: 0, total: 4, bytes: Bytes::from_static(b"wasm") };
    peer.send(Message::Binary(chunk.encode())).await;
    assert!(matches!(running.handed_on().await, Incoming::Chunk(c) if c == chunk));

    running.stop.cancel();
    assert_eq!(peer.close_code().await, Some(1001));
    soon(running.task).await.unwrap();
    assert_eq!(running.state.status().phase, Phase::Stopped);
}

#[tokio::test]
async fn a_wrong_authority_is_refused() {
    let running = start(Wrong { authority: true, ..Wrong::default() }).await;
    assert!(running.server.accept().await.is_none());
    running.last_error("invalid peer certificate: ").await;
}

#[tokio::test]
async fn a_right_chain_with_a_wrong_key_is_refused() {
    let running = start(Wrong { pin: true, ..Wrong::default() }).await;
    assert!(running.server.accept().await.is_none());
    running.last_error("not pinned").await;
}

#[tokio::test]
async fn a_forged_order_is_counted_and_not_answered() {
    let mut running = start(Wrong::default()).await;
    let mut peer = running.server.welcome(20).await;
    let forged = r#"{"invoke":{"proof":{"index":0,"count":1,"siblings":[]},"order":{"warrant":{"payloadType":"t","payload":"","signatures":[]},"args":{}}}}"#;
    peer.send(Message::text(forged)).await;
    peer.say(&BackendFrame::Ack { invocation: id(2) }).await;
    assert!(matches!(running.handed_on().await, Incoming::Acknowledged(_)), "nothing but the next frame");
    assert_eq!(running.state.orders_refused(), 1);
    running.draining.cancel();
    peer.send(Message::text(forged)).await;
    peer.say(&BackendFrame::Ack { invocation: id(2) }).await;
    assert!(matches!(running.handed_on().await, Incoming::Acknowledged(_)));
    assert_eq!(running.state.orders_refused(), 1, "who drains takes no orders");
}

#[tokio::test]
async fn bad_frames_end_the_session_and_the_next_one_works() {
    let running = start(Wrong::default()).await;
    let oversize = Message::text(format!("\"{}\"", "x".repeat(MAX_FRAME)));
    let cases = [
        (Message::text("{\"exec\":{}}"), 1008),
        (Message::text("[]"), 1008),
        (Message::Binary(Bytes::from_static(b"not a chunk")), 1008),
        (Message::text(r#"{"welcome":{"protocol":1,"session":"x","time_ms":1,"heartbeat_secs":1}}"#), 1008),
        (Message::text(format!(r#"{{"ack":{{"invocation":"{}"}}}}{}"#, id(1), " ".repeat(500))), 1009),
        (oversize, 1009),
    ];
    let count = u32::try_from(cases.len()).unwrap();
    for (bad, code) in cases {
        let mut peer = running.server.welcome(20).await;
        peer.send(bad).await;
        assert_eq!(peer.close_code().await, Some(code));
    }
    let mut peer = running.server.welcome(20).await;
    peer.say(&BackendFrame::Ping { nonce: 1, time_ms: TIME }).await;
    assert!(matches!(peer.hear().await, Some(GatewayFrame::Pong { nonce: 1 })));
    assert_eq!(running.state.frames_refused(), count);
    assert_eq!(running.state.reconnects(), count);
}

#[tokio::test]
async fn anything_but_a_welcome_is_no_welcome() {
    let running = start(Wrong::default()).await;
    let mut peer = running.server.accept().await.unwrap();
    peer.say(&BackendFrame::Ping { nonce: 1, time_ms: TIME }).await;
    running.last_error("out of turn").await;
    let mut peer = running.server.accept().await.unwrap();
    peer.say(&BackendFrame::Welcome { protocol: 99, session: "x".into(), time_ms: 1, heartbeat_secs: 1 }).await;
    running.last_error("speaks protocol 99").await;
    assert_eq!(running.state.reconnects(), 0);
}

#[tokio::test]
async fn a_silent_backend_is_left() {
    let running = start(Wrong::default()).await;
    let _silent = running.server.welcome(1).await;
    running.last_error("nothing was heard").await;
    running.server.welcome(20).await;
}

#[tokio::test]
async fn a_goodbye_is_honoured() {
    let running = start(Wrong::default()).await;
    let mut peer = running.server.welcome(20).await;
    let parted = std::time::Instant::now();
    peer.say(&BackendFrame::Goodbye { reason: "restart".into(), retry_after_secs: 1 }).await;
    running.last_error("restart").await;
    running.server.welcome(20).await;
    assert!(parted.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn results_go_again_after_each_reconnect_until_acknowledged() {
    let mut running = start(Wrong::default()).await;
    running.journal.finish(&id(1), &report("journaled")).await.unwrap();
    running.kept.lock().unwrap().push((id(2), Arc::new(report("in memory"))));
    for _ in 0..2 {
        let mut peer = running.server.welcome(20).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let Some(GatewayFrame::Result { invocation, .. }) = peer.hear().await else { panic!("a result") };
            seen.push(invocation);
        }
        seen.sort();
        assert_eq!(seen, [id(1), id(2)]);
        // The connection breaks before the acknowledgement.
    }
    let mut peer = running.server.welcome(20).await;
    for n in [1, 2] {
        peer.say(&BackendFrame::Ack { invocation: id(n) }).await;
        let Incoming::Acknowledged(invocation) = running.handed_on().await else { panic!("an acknowledgement") };
        running.kept.lock().unwrap().retain(|(id, _)| *id != invocation);
        running.journal.acknowledge(&invocation).await.unwrap();
    }
    drop(peer);
    let mut peer = running.server.welcome(20).await;
    let new = Arc::new(report("new"));
    running.kept.lock().unwrap().push((id(3), Arc::clone(&new)));
    running.outgoing.report(id(3), new);
    let Some(GatewayFrame::Result { invocation, .. }) = peer.hear().await else { panic!("a result") };
    assert_eq!(invocation, id(3), "what is acknowledged does not go again");
    assert!(running.bench.dir.path().exists());
}

#[tokio::test]
async fn an_absent_backend_is_tried_until_it_is_there() {
    let running = start(Wrong::default()).await;
    let Server { listener, tls } = running.server;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut watch = running.state.watch();
    let refused = |s: &LinkStatus| s.last_error.as_ref().is_some_and(|e| e.contains("no connection"));
    soon(watch.wait_for(refused)).await.unwrap();
    let server = Server { listener: TcpListener::bind(address).await.unwrap(), tls };
    server.welcome(20).await;
}
