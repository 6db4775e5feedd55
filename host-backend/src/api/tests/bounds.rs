//! What surrounds handlers and connections: panics, too many at once, slow clients, and
//! the end. The last of these over real sockets.

use axum::http::{Request, header};
use axum::routing::get;
use axum::{Router, body::Body};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::super::{layers, share, surround};
use super::fixture::Fixture;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_panic_is_an_internal_problem() {
    let fixture = Fixture::new().await;
    let api = share(fixture.app.clone(), fixture.shutdown.clone(), String::new());
    async fn falls() -> String {
        panic!("with a secret")
    }
    let router = surround(Router::new().route("/falls", get(falls)), api);
    let fixture = fixture.behind(router);
    let problem = fixture.get("/falls", "").await.problem(500, "internal");
    assert!(!problem.to_string().contains("secret"));
}

#[tokio::test]
async fn as_many_requests_as_may_be_are_answered() {
    let fixture = Fixture::new().await;
    let api = share(fixture.app.clone(), fixture.shutdown.clone(), String::new());
    let router = surround(Router::new().route("/", get(async || "here")), api.clone());
    let ask = || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap());
    let all = api.requests.try_acquire_many(u32::try_from(layers::MAX_REQUESTS).unwrap()).unwrap();
    let busy = ask().await.unwrap();
    assert_eq!(busy.status(), 429);
    assert!(busy.headers().contains_key(header::RETRY_AFTER));
    drop(all);
    assert_eq!(ask().await.unwrap().status(), 200);
}

#[tokio::test]
async fn as_many_streams_as_may_be_are_open() {
    let fixture = Fixture::with_plugin().await;
    let body = json!({"verb": "look", "agent_targets": ["web-01"]});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    let path = format!("/commands/{}/events", accepted["id"].as_str().unwrap());
    let mut open = Vec::new();
    for _ in 0..super::super::STREAMS {
        open.push(fixture.stream(&path, "viewer").await);
    }
    fixture.get(&path, "viewer").await.problem(429, "busy");
    let metrics = fixture.get("/metrics", "viewer").await.text;
    assert!(metrics.contains(&format!("viworks_backend_api_event_streams {}", super::super::STREAMS)));
    drop(open);
    drop(fixture.stream(&path, "viewer").await);
}

/// A served fixture: its address, and the task that ends with the service.
async fn serve(fixture: &Fixture) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = super::super::serve(listener, fixture.app.clone(), fixture.shutdown.clone());
    (address, tokio::spawn(service))
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_stream_over_a_socket_ends_with_the_service() {
    let fixture = Fixture::with_plugin().await;
    let (address, service) = serve(&fixture).await;
    let body = json!({"verb": "look", "agent_targets": ["web-01"]});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut follower = TcpStream::connect(address).await.unwrap();
    let path = format!("/commands/{}/events", accepted["id"].as_str().unwrap());
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", fixture.token("viewer"));
    follower.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    tokio::time::timeout(SOON, follower.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    fixture.shutdown.cancel();
    assert!(until_closed(&mut follower).await.ends_with("0\r\n\r\n"), "the stream ended whole");
    until_closed(&mut idle).await;
    tokio::time::timeout(SOON, service).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn headers_are_bounded() {
    let fixture = Fixture::new().await;
    let (address, _service) = serve(&fixture).await;
    for request in [
        format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100)),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024)),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn refusals_name_the_peer() {
    let fixture = Fixture::new().await;
    let (address, _service) = serve(&fixture).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /agents HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 401 "));
    let audited = fixture.audited().await;
    assert!(audited.contains(&"peer:127.0.0.1 api.read GET /agents refused".to_owned()), "{audited:#?}");
}

/// The whole answer to a request without a token.
async fn ask(address: std::net::SocketAddr, before: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{before}GET /agents HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
    // Who is refused early may not take all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    until_closed(&mut stream).await
}

async fn named(fixture: &Fixture, peer: &str) -> bool {
    fixture.audited().await.contains(&format!("peer:{peer} api.read GET /agents refused"))
}

#[tokio::test]
async fn a_trusted_proxy_says_who_asks_and_nobody_else() {
    let trusting = |net: &'static str| move |c: &mut crate::config::Config| c.trusted_proxies = nets(net);
    let fixture = Fixture::new_with(trusting("127.0.0.1")).await;
    let (address, _service) = serve(&fixture).await;
    ask(address, "", "X-Forwarded-For: 10.0.0.1, 203.0.113.7\r\n").await;
    assert!(named(&fixture, "203.0.113.7").await && !named(&fixture, "10.0.0.1").await);
    let fixture = Fixture::new_with(trusting("192.0.2.0/24")).await;
    let (address, _service) = serve(&fixture).await;
    ask(address, "", "X-Forwarded-For: 203.0.113.7\r\n").await;
    assert!(named(&fixture, "127.0.0.1").await && !named(&fixture, "203.0.113.7").await);
}

fn nets(net: &str) -> crate::edge::Nets {
    crate::edge::Nets::parse([net]).unwrap()
}

#[tokio::test]
async fn the_proxy_protocol_says_who_connects() {
    let with = |net: &'static str| {
        move |c: &mut crate::config::Config| {
            c.trusted_proxies = nets(net);
            c.api_proxy_protocol = true;
        }
    };
    let fixture = Fixture::new_with(with("127.0.0.1")).await;
    let (address, _service) = serve(&fixture).await;
    let header = "PROXY TCP4 203.0.113.7 192.0.2.9 50000 8080\r\n";
    // Who comes that way is no proxy: what it says of others counts for nothing.
    ask(address, header, "X-Forwarded-For: 203.0.113.9\r\n").await;
    assert!(named(&fixture, "203.0.113.7").await && !named(&fixture, "203.0.113.9").await);
    assert_eq!(ask(address, "", "").await, "", "no header, no answer");
    let fixture = Fixture::new_with(with("192.0.2.0/24")).await;
    let (address, _service) = serve(&fixture).await;
    assert_eq!(ask(address, header, "").await, "", "from no proxy");
}

#[tokio::test]
async fn an_address_has_a_rate_and_so_many_connections() {
    let fixture = Fixture::new_with(|c| {
        c.trusted_proxies = nets("127.0.0.1");
        (c.api_address_rate, c.api_address_burst) = (1, 3);
    })
    .await;
    let (address, _service) = serve(&fixture).await;
    for _ in 0..3 {
        assert!(ask(address, "", "X-Forwarded-For: 203.0.113.7\r\n").await.starts_with("HTTP/1.1 401 "));
    }
    let beyond = ask(address, "", "X-Forwarded-For: 203.0.113.7\r\n").await;
    assert!(
        beyond.starts_with("HTTP/1.1 429 ") && beyond.contains("retry-after: ") && beyond.contains("busy"),
        "{beyond}"
    );
    assert!(ask(address, "", "X-Forwarded-For: 203.0.113.8\r\n").await.starts_with("HTTP/1.1 401 "));

    let fixture = Fixture::new_with(|c| c.api_address_connections = 2).await;
    let (address, _service) = serve(&fixture).await;
    // One that dribbles its request, as a slow loris does.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HT").await.unwrap();
        slow.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let told = until_closed(&mut third).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 429 "), "{told}");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    other.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut other).await.starts_with("HTTP/1.1 "), "another address is served");
}
