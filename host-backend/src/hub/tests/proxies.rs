//! The port behind proxies: who the peer is said to be, by whom it may be said, and what
//! becomes of those who say it without being asked.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use viworks_protocol::frame::BackendFrame;

use super::backend::{Backend, Gateway};
use super::pki::{Authority, Client};
use crate::config::Config;
use crate::edge::Nets;
use crate::testing::soon;

const HEADER: &str = "x-client-cert";

fn trusting(net: &'static str) -> impl FnOnce(&mut Config) {
    move |config| {
        config.trusted_proxies = Nets::parse([net]).expect("a network");
        config.agents_proxy_protocol = true;
    }
}

fn header_mode(net: &'static str) -> impl FnOnce(&mut Config) {
    move |config| {
        config.trusted_proxies = Nets::parse([net]).expect("a network");
        config.agents_header_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.client_cert_header = Some(HEADER.to_owned());
    }
}

async fn begun_with(backend: &Backend, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(backend.address).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    stream
}

/// Whether the backend closes a connection without a word.
async fn closed(mut stream: TcpStream) -> bool {
    let mut byte = [0];
    !matches!(soon(stream.read(&mut byte)).await, Ok(1))
}

fn header_port(backend: &Backend) -> SocketAddr {
    let text = std::fs::read_to_string(backend.state.config.data_dir.join("listening.json")).expect("read");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    told["agents_header"].as_str().expect("there").parse().expect("an address")
}

#[tokio::test]
async fn a_trusted_proxy_names_the_peer() {
    let backend = Backend::start_with(trusting("127.0.0.1")).await;
    let stream = begun_with(&backend, b"PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\n").await;
    let tls = backend.tls_over(stream, Some(backend.authority.client("web-01", 7))).await.expect("TLS");
    let url = format!("wss://localhost{}", viworks_protocol::PATH);
    let (socket, _) = soon(tokio_tungstenite::client_async(url, tls)).await.expect("an upgrade");
    let mut gateway = Gateway { socket };
    gateway.hello("web-01").await;
    assert!(matches!(gateway.next().await, Some(BackendFrame::Welcome { .. })));

    // A refusal is the real peer's.
    let six = "PROXY TCP6 2001:db8::7 2001:db8::9 50000 8081\r\n";
    let tls = backend.tls_over(begun_with(&backend, six.as_bytes()).await, None).await.expect("TLS");
    let answer = soon(Backend::ask(tls, "/ws/agent", "")).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    backend.audited("session.identity", "peer:2001:db8::7").await;
}

#[tokio::test]
async fn without_a_header_or_with_a_bad_one_nobody_is_served() {
    let backend = Backend::start_with(trusting("127.0.0.1")).await;
    let bare = soon(backend.tls(Some(backend.authority.client("web-01", 7)))).await;
    assert!(bare.is_err(), "{bare:?}");
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(500));
    for bad in [b"PROXY TCP4 203.0.113.7\r\n    ".as_slice(), long.as_bytes(), b"GET /health HTTP/1.1\r\n\r\n"] {
        assert!(closed(begun_with(&backend, bad).await).await);
    }
    backend.audited("session.proxy-header", "peer:127.0.0.1").await;
}

#[tokio::test]
async fn nobody_else_names_a_peer() {
    // Who is no trusted proxy is refused, header or not.
    let backend = Backend::start_with(trusting("192.0.2.0/24")).await;
    assert!(closed(begun_with(&backend, b"PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\n").await).await);
    backend.audited("session.untrusted-proxy", "peer:127.0.0.1").await;
    // And where no proxy is expected, its header is no TLS.
    let backend = Backend::start().await;
    let stream = begun_with(&backend, b"PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\n").await;
    let tls = soon(backend.tls_over(stream, Some(backend.authority.client("web-01", 7)))).await;
    assert!(tls.is_err(), "{tls:?}");
    backend.audited("session.tls", "peer:127.0.0.1").await;
}

/// Ask the proxies' listener for a session, as a proxy does.
async fn passed(backend: &Backend, headers: &str) -> String {
    let stream = TcpStream::connect(header_port(backend)).await.expect("connected");
    soon(Backend::ask(stream, "/ws/agent", headers)).await.unwrap_or_default()
}

fn line(client: &Client) -> String {
    format!("{HEADER}: {}\r\nX-Forwarded-For: 203.0.113.7\r\n", client.passed())
}

#[tokio::test]
async fn a_passed_certificate_is_an_identity() {
    let backend = Backend::start_with(header_mode("127.0.0.1")).await;
    let mut request = format!("ws://localhost{}", viworks_protocol::PATH).into_client_request().expect("a request");
    let client = backend.authority.client("web-01", 7);
    request.headers_mut().insert(HEADER, client.passed().parse().expect("a header"));
    let stream = TcpStream::connect(header_port(&backend)).await.expect("connected");
    let (socket, _) = soon(tokio_tungstenite::client_async(request, stream)).await.expect("an upgrade");
    let mut gateway = Gateway { socket };
    gateway.hello("web-01").await;
    assert!(matches!(gateway.next().await, Some(BackendFrame::Welcome { .. })));
    backend.connected("web-01", true).await;
    // Revoked while it lasts, as any other.
    std::fs::write(backend.dir.path().join("crl.pem"), backend.authority.crl(&[7])).expect("written");
    assert_eq!(gateway.goodbye().await, "certificate-revoked");
    // And the same certificate is not taken again.
    assert!(passed(&backend, &line(&client)).await.starts_with("HTTP/1.1 403"));
    backend.audited("session.passed-certificate", "peer:203.0.113.7").await;
}

#[tokio::test]
async fn a_passed_certificate_is_judged_here() {
    let backend = Backend::start_with(header_mode("127.0.0.1")).await;
    let expired = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let good = backend.authority.client("web-01", 7);
    let lines = [
        String::new(),
        format!("{HEADER}: SUCCESS\r\n"),
        format!("{HEADER}: \r\n"),
        format!("{HEADER}: {}\r\n", "a".repeat(9 * 1024)),
        line(&good).repeat(2),
        line(&Authority::new("agents").client("web-01", 7)),
        line(&backend.authority.client_until("web-01", 8, expired)),
        line(&backend.authority.server_named("web-01")),
        line(&backend.authority.client("a/b", 9)),
    ];
    for bad in &lines {
        let answer = passed(&backend, bad).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{bad}: {answer}");
    }
    let refused = crate::metrics::Kind { kind: crate::metrics::Word("passed-certificate") };
    let refused = backend.state.metrics.refusals.get_or_create(&refused).get();
    assert_eq!(refused, lines.len() as u64);
    let huge = passed(&backend, &format!("{HEADER}: {}\r\n", "a".repeat(64 * 1024))).await;
    assert!(huge.is_empty() || huge.starts_with("HTTP/1.1 431"), "{huge}");
    let health = TcpStream::connect(header_port(&backend)).await.expect("connected");
    let health = soon(Backend::ask(health, "/health", "")).await.expect("an answer");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}

#[tokio::test]
async fn an_agent_that_passes_a_certificate_itself_is_refused() {
    let backend = Backend::start_with(header_mode("127.0.0.1")).await;
    let other = line(&backend.authority.client("web-02", 8));
    // With a certificate of its own, and without: on its own port neither counts.
    let tls = backend.tls(Some(backend.authority.client("web-01", 7))).await.expect("TLS");
    let answer = soon(Backend::ask(tls, "/ws/agent", &other)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    backend.audited("session.passed-certificate", "agent:web-01").await;
    let tls = backend.tls(None).await.expect("TLS");
    let answer = soon(Backend::ask(tls, "/ws/agent", &other)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    backend.audited("session.passed-certificate", "peer:127.0.0.1").await;
}

#[tokio::test]
async fn only_the_configured_proxy_reaches_the_proxies_listener() {
    let backend = Backend::start_with(header_mode("127.0.0.2")).await;
    assert_eq!(passed(&backend, &line(&backend.authority.client("web-01", 7))).await, "");
    backend.audited("session.untrusted-proxy", "peer:127.0.0.1").await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).expect("bound");
    let proxy = socket.connect(header_port(&backend)).await.expect("connected");
    let answer = soon(Backend::ask(proxy, "/health", "")).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
