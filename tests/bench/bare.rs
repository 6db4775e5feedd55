//! A bare mutual-TLS WebSocket server: what the same bytes cost without a store, a
//! registry or a warrant behind them. The baseline of fan-out, memory and round trips.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use viworks_tests::pki::{Ca, Identity};

/// A running server and its connections.
pub struct Bare {
    pub addr: SocketAddr,
    peers: Arc<std::sync::Mutex<Vec<mpsc::Sender<Message>>>>,
    answers: Arc<AtomicUsize>,
    pub first_hello: Option<oneshot::Receiver<Instant>>,
}

fn acceptor(ca: &Ca, server: &Identity) -> Result<TlsAcceptor> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).map_err(Error::other)?).map_err(Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(Error::other)?;
    let chain = vec![CertificateDer::from_pem_slice(server.cert_pem.as_bytes()).map_err(Error::other)?];
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).map_err(Error::other)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(Error::other)?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Bare {
    pub async fn start(ca: &Ca, server: &Identity) -> Result<Self> {
        let acceptor = acceptor(ca, server)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let peers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let answers = Arc::new(AtomicUsize::new(0));
        let (hello, first_hello) = oneshot::channel();
        let hello = Arc::new(std::sync::Mutex::new(Some(hello)));
        let shared = (Arc::clone(&peers), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, hello) = (acceptor.clone(), Arc::clone(&hello));
                let (peers, answers) = shared.clone();
                tokio::spawn(async move {
                    let _ = tcp.set_nodelay(true);
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
                    let Ok(socket) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await else {
                        return;
                    };
                    // Out of the handshake's large future, as the backend does.
                    tokio::spawn(serve(socket, peers, answers, hello));
                });
            }
        });
        Ok(Self { addr, peers, answers, first_hello: Some(first_hello) })
    }

    pub fn connected(&self) -> usize {
        self.peers.lock().map_or(0, |peers| peers.len())
    }

    /// Send one text to every peer; the time until all have answered.
    pub async fn round(&self, text: &str, within: Duration) -> Result<Duration> {
        let peers = self.peers.lock().map_err(|_| Error::other("poisoned"))?.clone();
        self.answers.store(0, Ordering::Relaxed);
        let text = Utf8Bytes::try_from(Bytes::from(text.to_owned())).map_err(Error::other)?;
        let start = Instant::now();
        for peer in &peers {
            peer.send(Message::Text(text.clone())).await.map_err(Error::other)?;
        }
        while self.answers.load(Ordering::Relaxed) < peers.len() {
            if start.elapsed() > within {
                return Err(Error::other("not all peers answered"));
            }
            tokio::task::yield_now().await;
        }
        Ok(start.elapsed())
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>;

async fn serve(
    mut socket: Socket,
    peers: Arc<std::sync::Mutex<Vec<mpsc::Sender<Message>>>>,
    answers: Arc<AtomicUsize>,
    hello: Arc<std::sync::Mutex<Option<oneshot::Sender<Instant>>>>,
) {
    let (sender, mut outgoing) = mpsc::channel(4);
    let welcome = r#"{"welcome":{"protocol":1,"session":"bare","time_ms":1,"heartbeat_secs":60}}"#;
    if socket.next().await.is_none() || socket.send(Message::text(welcome)).await.is_err() {
        return;
    }
    if let Ok(mut hello) = hello.lock()
        && let Some(hello) = hello.take()
    {
        let _ = hello.send(Instant::now());
    }
    if let Ok(mut peers) = peers.lock() {
        peers.push(sender);
    }
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(_))) => {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            Some(message) = outgoing.recv() => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}
