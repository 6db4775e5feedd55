//! Behind a real nginx with the files of `deploy/nginx/`: agents passed through by name, the API over
//! HTTPS, agents' TLS ended there; and what clients claim on the way.

use std::io::Error;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::{connector, write_identities};
use viworks_tests::gateway::Setup;
use viworks_tests::nginx::{Nginx, Site};
use viworks_tests::pki::{Ca, Identity};
use viworks_tests::program::{Running, eventually, program, run};

use crate::Result;

const SOON: Duration = Duration::from_secs(30);
/// A client that is not nginx.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 5];
const BEHIND: &str = "heartbeat_secs = 1\ntrusted_proxies = [\"127.0.0.1\"]\nagents_proxy_protocol = true\n";
const PASSED: &str = "heartbeat_secs = 1\ntrusted_proxies = [\"127.0.0.1\"]\nagents_header_listen = \"127.0.0.1:0\"\n\
                      client_cert_header = \"x-viworks-client-cert\"\n";

fn cluster(backend: &str) -> std::io::Result<Cluster> {
    Cluster::start_with(&Options { backend: backend.to_owned() })
}

fn listening(cluster: &Cluster, key: &str) -> std::io::Result<String> {
    let told: Value = serde_json::from_str(&std::fs::read_to_string(cluster.path("backend/listening.json"))?)?;
    told[key].as_str().map(str::to_owned).ok_or_else(|| Error::other(told.to_string()))
}

fn api(cluster: &Cluster) -> String {
    cluster.api.url()["http://".len()..].to_owned()
}

async fn tcp(to: SocketAddr, from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A request for a session over TLS for `name`; the answer, or what kept it away.
fn ask(to: SocketAddr, from: [u8; 4], name: &'static str, tls: &TlsConnector) -> std::io::Result<String> {
    let work = async {
        let name = name.try_into().map_err(Error::other)?;
        let mut stream = tls.connect(name, tcp(to, from).await?).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::runtime::Runtime::new()?.block_on(async { tokio::time::timeout(SOON, work).await.map_err(Error::other)? })
}

fn audited(cluster: &Cluster, actor: &str, action: &str) -> Result {
    eventually(&format!("{action} by {actor} is audited"), SOON, || {
        let page = cluster.api.get("/audit?limit=1000")?.expect_status(200)?;
        let all = page["items"].as_array().cloned().unwrap_or_default();
        let found = all.iter().any(|entry| entry["actor"] == actor && entry["action"] == action);
        if found { Ok(Some(())) } else { Err(Error::other(page.to_string())) }
    })
}

#[test]
fn agents_are_passed_through_by_name() -> Result {
    let (one, two) = (cluster(BEHIND)?, cluster(BEHIND)?);
    one.publish("accounts")?;
    // Read again by the second backend while it runs.
    let server = two.ca.server_named(&["two.example.com"]).map_err(Error::other)?;
    std::fs::write(two.path("backend.key.pem"), &server.key_pem)?;
    std::fs::write(two.path("backend.pem"), &server.cert_pem)?;
    let site = Site {
        // One of the servers is down: nobody notices.
        agents: vec![
            ("localhost".into(), vec!["127.0.0.1:1".into(), one.agents_addr.clone()]),
            ("two.example.com".into(), vec![two.agents_addr.clone()]),
        ],
        api: vec![api(&one)],
        header: None,
    };
    let nginx = Nginx::start(&site, one.dir())?;

    // A real gateway: its certificate and its pin hold from end to end.
    let _gateway = Setup::new(&one, "web-01")?.start_via(&one, &format!("wss://localhost:{}", nginx.agents))?;
    one.ready("web-01", 1)?;
    let listed = one.run("web-01", "list_users", &json!({}))?;
    assert_eq!(listed["state"], "succeeded", "{listed}");

    // The name leads to the other backend, whose certificate is another authority's.
    let agent = connector(&two.ca.agent("web-02").map_err(Error::other)?, &two.ca.cert_pem())?;
    let health = eventually("the renewed certificate", SOON, || {
        ask(local(nginx.agents), ELSEWHERE, "two.example.com", &agent).map(Some)
    })?;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    // A name that nobody has leads nowhere.
    let nowhere = ask(local(nginx.agents), ELSEWHERE, "three.example.com", &agent);
    assert!(nowhere.is_err(), "{nowhere:?}");

    // Who is refused is named by its own address, not nginx's.
    let stranger = Ca::new("strangers").map_err(Error::other)?.agent("web-01").map_err(Error::other)?;
    let stranger = connector(&stranger, &one.ca.cert_pem())?;
    assert!(ask(local(nginx.agents), ELSEWHERE, "localhost", &stranger).is_err());
    audited(&one, "peer:127.0.0.5", "session.tls")
}

#[test]
fn nobody_claims_an_address() -> Result {
    let cluster = cluster(BEHIND)?;
    let site = Site {
        agents: vec![("localhost".into(), vec![cluster.agents_addr.clone()])],
        api: vec![api(&cluster)],
        header: None,
    };
    let nginx = Nginx::start(&site, cluster.dir())?;
    let backend: SocketAddr = cluster.agents_addr.parse().map_err(Error::other)?;
    let claim = |to: SocketAddr, from: [u8; 4]| {
        let work = async {
            let mut stream = tcp(to, from).await?;
            stream.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\n").await?;
            // Long enough for nginx to see that this is no TLS.
            stream.write_all(&[b'x'; 512]).await?;
            let mut byte = [0];
            stream.read(&mut byte).await
        };
        tokio::runtime::Runtime::new()?
            .block_on(async { tokio::time::timeout(SOON, work).await.map_err(Error::other)? })
    };
    // Around nginx: no proxy that is trusted.
    assert!(!matches!(claim(backend, ELSEWHERE), Ok(1)));
    audited(&cluster, "peer:127.0.0.5", "session.untrusted-proxy")?;
    // Through nginx: no TLS, so no name, so no backend.
    assert!(!matches!(claim(local(nginx.agents), ELSEWHERE), Ok(1)));
    // As nginx, but without saying for whom.
    let agent = connector(&cluster.ca.agent("web-01").map_err(Error::other)?, &cluster.ca.cert_pem())?;
    assert!(ask(backend, [127, 0, 0, 1], "localhost", &agent).is_err());
    audited(&cluster, "peer:127.0.0.1", "session.proxy-header")?;
    let page = cluster.api.get("/audit?limit=1000")?.expect_status(200)?.to_string();
    assert!(!page.contains("203.0.113.7"), "{page}");
    Ok(())
}

/// What curl says of a request over HTTPS, head and body.
fn curl(cluster: &Cluster, url: &str, more: &[&str]) -> String {
    let ca = cluster.path("ca.pem");
    let fixed = ["-sS", "-4", "-i", "--interface", "127.0.0.5", "--max-time", "4", "--cacert"];
    let fixed = fixed.into_iter().map(AsRef::as_ref).chain([ca.as_os_str(), url.as_ref()]);
    run("/usr/bin/curl".as_ref(), fixed.chain(more.iter().map(AsRef::as_ref))).unwrap_or_else(|e| e.to_string())
}

#[test]
fn the_api_is_behind_https() -> Result {
    let mut cluster = cluster("heartbeat_secs = 1\ntrusted_proxies = [\"127.0.0.1\"]\nresult_grace_secs = 30\n")?;
    cluster.publish("health")?;
    let site = Site { agents: Vec::new(), api: vec!["127.0.0.1:1".into(), api(&cluster)], header: None };
    let nginx = Nginx::start(&site, cluster.dir())?;
    let url = |path: &str| format!("https://localhost:{}{path}", nginx.api);
    let bearer = format!("Authorization: Bearer {}", cluster.token("nginx", "admin")?);

    let refused = curl(&cluster, &url("/agents"), &["-H", "X-Forwarded-For: 203.0.113.7"]).to_lowercase();
    assert!(refused.starts_with("http/2 401"), "{refused}");
    for header in ["strict-transport-security", "x-content-type-options", "content-security-policy", "x-frame-options"]
    {
        assert_eq!(refused.matches(&format!("\n{header}:")).count(), 1, "{header}: {refused}");
    }
    assert!(refused.contains("\nserver: nginx\r\n"), "no version: {refused}");
    audited(&cluster, "peer:127.0.0.5", "api.read")?;
    let page = cluster.api.get("/audit?limit=1000")?.expect_status(200)?.to_string();
    assert!(!page.contains("203.0.113.7"), "what a client forwards itself counts for nothing: {page}");

    let served = curl(&cluster, &url("/agents"), &["-H", &bearer]);
    assert!(served.starts_with("HTTP/2 200") && served.contains("\"items\""), "{served}");

    // Bodies: 1 MiB, but plugins are larger.
    let body = cluster.path("body.json");
    std::fs::write(&body, vec![b' '; 2 << 20])?;
    let data = format!("@{}", body.display());
    let send = ["-H", &bearer, "-H", "Content-Type: application/json", "--data-binary", &data];
    let large = curl(&cluster, &url("/commands"), &send);
    assert!(large.starts_with("HTTP/2 413") && large.contains("body-too-large"), "{large}");
    assert!(large.to_lowercase().contains("strict-transport-security"), "also where nginx answers: {large}");
    let plugin = curl(&cluster, &url("/plugins"), &send);
    assert!(plugin.starts_with("HTTP/2 400"), "{plugin}");

    // Events come while the command runs, not when it ends.
    let fleet = cluster.path("fleet");
    let mut sims = Vec::new();
    for (prefix, behave) in [("prompt", "prompt"), ("mute", "silent")] {
        write_identities(&cluster.ca, &fleet, prefix, 0..1)?;
        let (dir, at) = (fleet.to_string_lossy().into_owned(), cluster.agents_addr.clone());
        let args = ["--backend", &at, "--dir", &dir, "--prefix", prefix, "--agents", "1", "--behave", behave];
        sims.push(Running::start(&program("viworks-fleet")?, args, &cluster.path("fleet.log"))?);
    }
    eventually("both are there", SOON, || {
        let agents = cluster.api.get("/agents?status=online")?.expect_status(200)?;
        Ok((agents["items"].as_array().map_or(0, Vec::len) == 2).then_some(()))
    })?;
    let body = json!({"verb": "get_system_health", "args": {}, "agent_targets": ["prompt-0", "mute-0"]});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let stream = curl(&cluster, &url(&format!("/commands/{id}/events")), &["-N", "-H", &bearer]);
    assert!(stream.contains("event: invocation") && !stream.contains("event: finished"), "{stream}");

    cluster.backend.terminate(SOON)?;
    let down = curl(&cluster, &url("/health"), &[]);
    assert!(down.starts_with("HTTP/2 503") && down.to_lowercase().contains("retry-after: 5"), "{down}");
    Ok(())
}

/// Open a session as `identity` says, passing `claimed` as somebody else, and say hello as `agent`.
fn impersonate(port: u16, ca: &str, identity: &Identity, claimed: &str, agent: &str) -> std::io::Result<String> {
    let tls = connector(identity, ca)?;
    let work = async {
        let stream =
            tls.connect("localhost".try_into().map_err(Error::other)?, tcp(local(port), ELSEWHERE).await?).await?;
        let url = format!("wss://localhost:{port}{}", viworks_protocol::PATH);
        let mut request = url.into_client_request().map_err(Error::other)?;
        let escaped: String = claimed.bytes().map(|b| format!("%{b:02X}")).collect();
        request.headers_mut().insert("x-viworks-client-cert", escaped.parse().map_err(Error::other)?);
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(Error::other)?;
        let hello = json!({"hello": {"protocol": viworks_protocol::VERSION, "agent": agent, "version": "0", "boot": "b",
            "max_concurrency": 1, "plugins": []}});
        socket.send(Message::text(hello.to_string())).await.map_err(Error::other)?;
        let answer = socket.next().await.ok_or_else(|| Error::other("closed"))?.map_err(Error::other)?;
        answer.into_text().map(|text| text.to_string()).map_err(Error::other)
    };
    tokio::runtime::Runtime::new()?.block_on(async { tokio::time::timeout(SOON, work).await.map_err(Error::other)? })
}

#[test]
fn a_certificate_is_passed_on_by_nginx_alone() -> Result {
    let cluster = cluster(PASSED)?;
    cluster.publish("accounts")?;
    let header = listening(&cluster, "agents_header")?;
    let site = Site { agents: Vec::new(), api: vec![api(&cluster)], header: Some(header.clone()) };
    let nginx = Nginx::start(&site, cluster.dir())?;
    let _gateway = Setup::new(&cluster, "web-01")?.start_via(&cluster, &format!("wss://localhost:{}", nginx.mtls))?;
    cluster.ready("web-01", 1)?;
    let listed = cluster.run("web-01", "list_users", &json!({}))?;
    assert_eq!(listed["state"], "succeeded", "{listed}");

    // Somebody else's certificate in the header: nginx writes the client's own over it.
    let (own, other) = (cluster.ca.agent("web-02"), cluster.ca.agent("web-03"));
    let (own, other) = (own.map_err(Error::other)?, other.map_err(Error::other)?);
    let ca = cluster.ca.cert_pem();
    let told = impersonate(nginx.mtls, &ca, &own, &other.cert_pem, "web-03")?;
    assert!(told.contains("identity-mismatch"), "{told}");
    let told = impersonate(nginx.mtls, &ca, &own, &other.cert_pem, "web-02")?;
    assert!(told.contains("welcome"), "{told}");
    // The same at the agents' own port, and around nginx at the proxies' listener.
    let direct: SocketAddr = cluster.agents_addr.parse().map_err(Error::other)?;
    assert!(impersonate(direct.port(), &ca, &own, &other.cert_pem, "web-02").is_err());
    audited(&cluster, "agent:web-02", "session.passed-certificate")?;
    let around = tokio::runtime::Runtime::new()?.block_on(async {
        let mut stream = tcp(header.parse().map_err(Error::other)?, ELSEWHERE).await?;
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        tokio::time::timeout(SOON, stream.read(&mut [0])).await.map_err(Error::other)?
    });
    assert!(!matches!(around, Ok(1)), "{around:?}");
    audited(&cluster, "peer:127.0.0.5", "session.untrusted-proxy")?;

    // No certificate of the agents' authority: nginx itself says no.
    let stranger = Ca::new("strangers").map_err(Error::other)?.agent("web-01").map_err(Error::other)?;
    let refused = ask(local(nginx.mtls), ELSEWHERE, "localhost", &connector(&stranger, &ca)?);
    assert!(refused.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 400")) || refused.is_err(), "{refused:?}");
    Ok(())
}

/// Longer than what nginx would wait by itself.
pub fn an_idle_session_stays() -> Result {
    let backend = PASSED.replace("heartbeat_secs = 1", "heartbeat_secs = 100");
    let cluster = cluster(&backend)?;
    cluster.publish("accounts")?;
    let site =
        Site { agents: Vec::new(), api: vec![api(&cluster)], header: Some(listening(&cluster, "agents_header")?) };
    let nginx = Nginx::start(&site, cluster.dir())?;
    let gateway = Setup::new(&cluster, "web-01")?;
    let gateway = gateway.start_via(&cluster, &format!("wss://localhost:{}", nginx.mtls))?;
    cluster.ready("web-01", 1)?;
    std::thread::sleep(Duration::from_secs(75));
    let listed = cluster.run("web-01", "list_users", &json!({}))?;
    assert_eq!(listed["state"], "succeeded", "{listed}");
    let sessions = gateway.audit().iter().filter(|line| line.to_string().contains("session up")).count();
    assert_eq!(sessions, 1, "one session all along");
    Ok(())
}
