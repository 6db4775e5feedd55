//! A whole backend on free ports, and a gateway's end of real sessions with it.

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use viworks_protocol::VERSION;
use viworks_protocol::frame::{BackendFrame, GatewayFrame, Hello};
use viworks_signing::keys::SecretKey;

use super::pki::{Authority, Client};
use crate::app::{AppState, tls_files};
use crate::config::Config;
use crate::hub::Tls;
use crate::store::model::PageOf;
use crate::testing::{agent, component, release, soon};

pub(super) struct Backend {
    pub state: AppState,
    pub tls: Arc<Tls>,
    pub authority: Authority,
    pub address: SocketAddr,
    pub dir: TempDir,
    pub key: SecretKey,
}

impl Backend {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (authority, key) = (Authority::new("agents"), SecretKey::generate());
        let (agents_cert, agents_key) = authority.server(dir.path());
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let mut config = Config {
            data_dir: dir.path().join("data"),
            api_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents_cert,
            agents_key,
            agents_client_ca: file("ca.pem", &authority.pem),
            agents_crl: Some(file("crl.pem", &authority.crl(&[]))),
            release_keys: file("release.pub.pem", &key.public().to_pem().expect("PEM")),
            heartbeat_secs: 1,
            drain_secs: 5,
            ..Config::default()
        };
        change(&mut config);
        let tls = Arc::new(Tls::load(tls_files(&config)).expect("TLS"));
        let state = AppState::build(config).await.expect("built");
        let (_, address) = state.start(tls.clone()).await.expect("started");
        Self { state, tls, authority, address, dir, key }
    }

    pub(super) async fn publish(&self, plugin: &str, verb: &str, bytes: Vec<u8>) {
        let signed = release(&self.key, plugin, 1, verb, &bytes);
        self.state
            .catalog
            .publish(bytes.into(), signed, crate::catalog::Wanted::Active, "tests")
            .await
            .expect("published");
    }

    pub(super) async fn with_ping() -> Self {
        let backend = Self::start().await;
        backend.publish("probe", "ping", component("probe")).await;
        backend
    }

    /// A TLS connection, with or without a certificate.
    pub(super) async fn tls(&self, client: Option<Client>) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls_over(TcpStream::connect(self.address).await?, client).await
    }

    /// The same over a connection that is there.
    pub(super) async fn tls_over(
        &self,
        stream: TcpStream,
        client: Option<Client>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der.clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            Some(Client { chain, key }) => builder.with_client_auth_cert(chain, key).expect("a client"),
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The whole answer to a GET, or what TLS says.
    pub(super) async fn get(&self, client: Option<Client>, path: &str) -> std::io::Result<String> {
        let tls = self.tls(client).await?;
        Self::ask(tls, path, "").await
    }

    /// Ask for an upgrade with more header lines; the whole answer.
    pub(super) async fn ask(
        mut tls: impl AsyncRead + AsyncWrite + Unpin,
        path: &str,
        more: &str,
    ) -> std::io::Result<String> {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{more}\r\n");
        tls.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// An upgraded connection of `id` that has said nothing yet.
    pub(super) async fn dial(&self, id: &str) -> Gateway {
        self.dial_as(self.authority.client(id, 7)).await
    }

    pub(super) async fn dial_as(&self, client: Client) -> Gateway {
        let tls = self.tls(Some(client)).await.expect("TLS");
        let url = format!("wss://localhost{}", viworks_protocol::PATH);
        let (socket, _) = soon(tokio_tungstenite::client_async(url, tls)).await.expect("an upgrade");
        Gateway { socket }
    }

    /// An admitted session of `id`.
    pub(super) async fn session(&self, id: &str) -> Gateway {
        let mut gateway = self.dial(id).await;
        gateway.hello(id).await;
        let welcome = gateway.next().await;
        assert!(matches!(welcome, Some(BackendFrame::Welcome { protocol: VERSION, .. })), "{welcome:?}");
        let offers = gateway.next().await;
        assert!(matches!(offers, Some(BackendFrame::Plugins { .. })), "{offers:?}");
        gateway
    }

    /// Wait until the audit record's latest entry is this action.
    pub(super) async fn audited(&self, action: &str, actor: &str) {
        let found = async {
            loop {
                self.state.store.flush().await.expect("written");
                let rows = self.state.store.audit_page(&PageOf::first(20)).await.expect("read").items;
                if rows.iter().any(|r| r.entry.action == action && r.entry.actor == actor) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(found).await;
    }

    /// Wait until the hub knows `id` as connected, or not.
    pub(super) async fn connected(&self, id: &str, wanted: bool) {
        let id = agent(id);
        soon(async {
            while self.state.hub.is_connected(&id) != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A gateway's end.
pub(super) struct Gateway<S = TlsStream<TcpStream>> {
    pub socket: WebSocketStream<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gateway<S> {
    pub(super) async fn text(&mut self, text: impl Into<String>) {
        // A refused gateway learns it when it reads.
        let _ = self.socket.send(Message::text(text.into())).await;
    }

    pub(super) async fn say(&mut self, frame: &GatewayFrame) {
        self.text(serde_json::to_string(frame).expect("a frame")).await;
    }

    pub(super) async fn hello(&mut self, id: &str) {
        self.say(&GatewayFrame::Hello(Hello {
            receipt_key: None,
            protocol: VERSION,
            agent: agent(id),
            version: "0.1.0".into(),
            boot: "b".into(),
            site: None,
            labels: BTreeMap::new(),
            max_concurrency: 4,
            plugins: Vec::new(),
        }))
        .await;
    }

    /// The next message that is no ping of the heartbeat; pings are answered.
    pub(super) async fn message(&mut self) -> Option<Message> {
        loop {
            let message = soon(self.socket.next()).await?.ok()?;
            if let Message::Text(text) = &message
                && let Ok(BackendFrame::Ping { nonce, .. }) = serde_json::from_str(text)
            {
                self.say(&GatewayFrame::Pong { nonce }).await;
                continue;
            }
            return Some(message);
        }
    }

    pub(super) async fn next(&mut self) -> Option<BackendFrame> {
        match self.message().await? {
            Message::Text(text) => Some(serde_json::from_str(&text).expect("a frame")),
            _ => None,
        }
    }

    /// Why the backend ends the session.
    pub(super) async fn goodbye(&mut self) -> String {
        loop {
            match self.next().await {
                Some(BackendFrame::Goodbye { reason, .. }) => return reason,
                Some(_) => {}
                None => return "closed without a goodbye".into(),
            }
        }
    }
}
