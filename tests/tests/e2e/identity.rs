//! Who may speak: wrong, expired, revoked and foreign certificates, wrong pins, second
//! sessions, frames that are too much. Each is refused, and said.

use std::io::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::{Answers, Behaviour, connector, run_agent};
use viworks_tests::gateway::{Gateway, Setup};
use viworks_tests::pki::{Ca, Identity};
use viworks_tests::program::{eventually, run};

use crate::Result;

const SOON: Duration = Duration::from_secs(20);

/// Whether a client with this identity gets as far as a welcome.
async fn welcomed(cluster: &Cluster, id: &str, identity: &Identity) -> std::io::Result<bool> {
    let tls = connector(identity, &cluster.ca.cert_pem())?;
    let answers = Arc::new(Answers::new("{}")?);
    let backend: SocketAddr = cluster.agents_addr.parse().map_err(Error::other)?;
    let gate = Arc::new(tokio::sync::Semaphore::new(1));
    let agent = id.parse().map_err(Error::other)?;
    let session = run_agent(agent, backend, None, tls, Behaviour::Prompt, Arc::clone(&answers), gate);
    // A session that is accepted lasts; one that is refused ends by itself.
    let ended = tokio::time::timeout(Duration::from_secs(5), session).await;
    Ok(ended.is_err() && answers.counts.connected.load(std::sync::atomic::Ordering::Relaxed) == 1)
}

/// The audit trail, which is written behind the answer, tells of a refusal that names this.
fn audited(cluster: &Cluster, what: &str) -> Result {
    eventually(&format!("{what} in the audit trail"), SOON, || {
        let audit = cluster.api.get("/audit?limit=1000")?.expect_status(200)?;
        let mut items = audit["items"].as_array().cloned().unwrap_or_default().into_iter();
        let told = items.any(|item| item["decision"] == "refused" && item.to_string().contains(what));
        if told { Ok(Some(())) } else { Err(Error::other(audit.to_string())) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_certificate_of_its_own_name_is_welcome() -> Result {
    let cluster = tokio::task::block_in_place(Cluster::start)?;
    let ca = &cluster.ca;
    assert!(welcomed(&cluster, "web-01", &ca.agent("web-01").map_err(Error::other)?).await?);

    let foreign = Ca::new("somebody else").and_then(|ca| ca.agent("web-01")).map_err(Error::other)?;
    assert!(!welcomed(&cluster, "web-01", &foreign).await?, "another CA's certificate");
    let expired = ca.expired_agent("web-01").map_err(Error::other)?;
    assert!(!welcomed(&cluster, "web-01", &expired).await?, "an expired certificate");
    let other = ca.agent("web-02").map_err(Error::other)?;
    assert!(!welcomed(&cluster, "web-01", &other).await?, "another agent's certificate");
    assert!(!welcomed(&cluster, "web-01", &cluster.server).await?, "the server's own certificate");
    audited(&cluster, "web-02")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused() -> Result {
    let crl = tempfile::NamedTempFile::new()?;
    let cluster = tokio::task::block_in_place(|| {
        let cluster = Cluster::start()?;
        std::fs::write(crl.path(), cluster.ca.crl(&[]).map_err(Error::other)?)?;
        Ok::<_, Error>(cluster)
    })?;
    // The list is part of the configuration: start again with it.
    let mut cluster = cluster;
    let config = cluster.path("backend.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}\nagents_crl = {:?}\n", crl.path()))?;
    cluster.backend.kill()?;
    cluster.restart_backend()?;

    let identity = cluster.ca.agent("web-01").map_err(Error::other)?;
    assert!(welcomed(&cluster, "web-01", &identity).await?);
    // Another modification time, whatever the file system's grain.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    std::fs::write(crl.path(), cluster.ca.crl(&[&identity]).map_err(Error::other)?)?;
    let until = std::time::Instant::now() + Duration::from_secs(40);
    while welcomed(&cluster, "web-01", &identity).await? {
        assert!(std::time::Instant::now() < until, "a revoked certificate is still welcome");
    }
    Ok(())
}

#[test]
fn a_gateway_refuses_a_backend_with_another_key() -> Result {
    let cluster = Cluster::start()?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.pin = cluster.ca.server().map_err(Error::other)?.pin;
    let gateway = setup.start(&cluster)?;
    eventually("the refusal is audited", SOON, || {
        Ok(gateway.audit().iter().any(|record| record.to_string().contains("pin")).then_some(()))
    })?;
    assert_eq!(cluster.api.get("/agents/web-01")?.problem(404)?, "not-found");
    Ok(())
}

#[test]
fn a_gateway_refuses_a_backend_of_another_ca() -> Result {
    let cluster = Cluster::start()?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.ca_pem = Ca::new("another").map_err(Error::other)?.cert_pem();
    let _gateway = setup.start(&cluster)?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.api.get("/agents/web-01")?.problem(404)?, "not-found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_one_agent_does_not_displace_a_live_one() -> Result {
    let cluster = tokio::task::block_in_place(Cluster::start)?;
    let _gateway = tokio::task::block_in_place(|| Gateway::start(&cluster, "web-01"))?;
    tokio::task::block_in_place(|| cluster.ready("web-01", 0))?;
    let twin = cluster.ca.agent("web-01").map_err(Error::other)?;
    assert!(!welcomed(&cluster, "web-01", &twin).await?);
    tokio::task::block_in_place(|| cluster.ready("web-01", 0))?;
    audited(&cluster, "session")?;
    Ok(())
}

/// Open a session as `web-01`, send these messages after the hello, and wait for its end.
async fn misbehave(cluster: &Cluster, messages: Vec<Message>) -> std::io::Result<bool> {
    let identity = cluster.ca.agent("web-01").map_err(Error::other)?;
    let tls = connector(&identity, &cluster.ca.cert_pem())?;
    let tcp = tokio::net::TcpStream::connect(&cluster.agents_addr).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").map_err(Error::other)?;
    let stream = tls.connect(name, tcp).await?;
    let (mut socket, _) =
        tokio_tungstenite::client_async("wss://localhost/ws/agent", stream).await.map_err(Error::other)?;
    let hello = json!({"hello": {
        "protocol": 1, "agent": "web-01", "version": "0", "boot": "b", "max_concurrency": 1, "plugins": []
    }});
    socket.send(Message::text(hello.to_string())).await.map_err(Error::other)?;
    for message in messages {
        // The other side may have hung up already, which is what is wanted.
        let _ = socket.send(message).await;
    }
    let drained = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
    });
    Ok(drained.await.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_too_much_end_the_session() -> Result {
    let cluster = tokio::task::block_in_place(Cluster::start)?;
    let cases = [
        ("malformed", vec![Message::text("{")]),
        ("unknown kind", vec![Message::text(r#"{"exec":{"cmd":"id"}}"#)]),
        ("a backend's frame", vec![Message::text(r#"{"ack":{"invocation":"inv-00000000000000000000000000000000"}}"#)]),
        ("binary", vec![Message::binary(vec![0; 64])]),
        ("oversize for its kind", vec![Message::text(format!(r#"{{"pong":{{"nonce":1{}}}}}"#, " ".repeat(4096)))]),
        ("oversize", vec![Message::text("x".repeat(3 << 20))]),
        (
            "second hello",
            vec![Message::text(
                r#"{"hello":{"protocol":1,"agent":"web-01","version":"0","boot":"b","max_concurrency":1,"plugins":[]}}"#,
            )],
        ),
        ("flood", vec![Message::text(r#"{"pong":{"nonce":1}}"#); 2_000]),
    ];
    for (what, messages) in cases {
        assert!(misbehave(&cluster, messages).await?, "{what}: the session went on");
    }
    let health = cluster.api.get("/health")?.expect_status(200)?;
    assert_eq!(health["status"], "healthy");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agents_invocation_is_not_ones_own() -> Result {
    let cluster = tokio::task::block_in_place(|| Cluster::start_with(&Options::default()))?;
    tokio::task::block_in_place(|| cluster.publish("accounts"))?;
    let mut victim = tokio::task::block_in_place(|| Gateway::start(&cluster, "db-01"))?;
    tokio::task::block_in_place(|| cluster.ready("db-01", 1))?;
    victim.process.kill()?;
    let body = json!({"verb": "list_users", "args": {}, "agent_targets": ["db-01"], "expires_in_secs": 300});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let command = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
    let invocation = command["invocations"][0]["id"].clone();
    let forged = json!({"result": {"invocation": invocation, "report": {
        "outcome": "succeeded", "result": [], "cost":
            {"wall_us": 1, "cpu_us": 1, "peak_memory_bytes": 1, "host_calls": 1, "denials": 0},
        "started_ms": 1, "finished_ms": 2
    }}});
    misbehave(&cluster, vec![Message::text(forged.to_string())]).await?;
    let after = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
    assert_ne!(after["invocations"][0]["state"], "succeeded", "{after}");
    audited(&cluster, invocation.as_str().unwrap_or("none"))?;
    Ok(())
}

#[test]
fn check_names_every_fault_at_once() -> Result {
    let cluster = Cluster::start()?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.identity.key_pem = cluster.ca.agent("x").map_err(Error::other)?.key_pem;
    setup.pin = "sha256/short".into();
    setup.keys = "required_scripts = [\"missing.sh\"]\n".into();
    let dir = setup.write(&cluster)?;
    let config = dir.join("gateway.toml");
    let text = std::fs::read_to_string(&config)?.replace("wss://", "http://");
    std::fs::write(&config, text)?;
    let program = viworks_tests::program::program("viworks-gateway")?;
    let report = run(&program, ["check".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let Err(report) = report else { panic!("a broken configuration passed") };
    let report = report.to_string();
    for key in ["backend_url", "key_path", "backend_spki_pin", "required_scripts"] {
        assert!(report.contains(key), "{key} in:\n{report}");
    }
    Ok(())
}
