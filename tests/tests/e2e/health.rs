//! Health while something is really broken: a full disk, a locked database, a certificate
//! that ended, a drain. Each answer comes in time, names what is broken and nothing else,
//! and recovers without a restart.

use std::io::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options, write_secret};
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{eventually, run, signal};

use crate::Result;

/// No answer takes longer, whatever hangs behind it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

fn health(cluster: &Cluster) -> std::io::Result<(u16, Value)> {
    let began = Instant::now();
    let answer = cluster.api.with_token(None).get("/health")?;
    assert!(began.elapsed() < ANSWER_WITHIN, "an answer after {:?}", began.elapsed());
    Ok((answer.status, answer.body))
}

/// The services that are degraded.
fn degraded(health: &Value) -> Vec<String> {
    let services = health["services"].as_object().into_iter().flatten();
    services.filter(|(_, service)| service["status"] == "degraded").map(|(name, _)| name.clone()).collect()
}

/// Wait until these and no others are degraded.
fn shows(cluster: &Cluster, wanted: &[&str]) -> Result {
    let mut wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    wanted.sort_unstable();
    eventually(&format!("degraded: {wanted:?}"), Duration::from_secs(30), || {
        let (status, health) = health(cluster)?;
        let mut found = degraded(&health);
        found.sort_unstable();
        let right = if wanted.is_empty() { 200 } else { 503 };
        if found == wanted && status == right { Ok(Some(())) } else { Err(Error::other(health.to_string())) }
    })
}

fn ready(cluster: &Cluster) -> std::io::Result<Value> {
    let began = Instant::now();
    let body = cluster.api.with_token(None).get("/health/ready")?.body;
    assert!(began.elapsed() < ANSWER_WITHIN, "an answer after {:?}", began.elapsed());
    Ok(body)
}

#[test]
fn a_full_disk_shows_and_recovers() -> Result {
    let mut cluster = Cluster::start()?;
    cluster.publish("health")?;
    assert!(cluster.backend.terminate(Duration::from_secs(20))?.success());
    cluster.restart_on_small_disk(48)?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    shows(&cluster, &[])?;

    let fill = cluster.path("backend/fill").to_string_lossy().into_owned();
    // It ends by the disk's end, which is its failure.
    assert!(cluster.in_its_mounts(&["dd", "if=/dev/zero", &format!("of={fill}"), "bs=64K"]).is_err());
    shows(&cluster, &["command_engine", "database", "disk"])?;
    assert_eq!(ready(&cluster)?, json!({"status": "not_ready", "reasons": ["store"]}));
    let live = cluster.api.with_token(None).get("/health/live")?.expect_status(200)?;
    assert_eq!(live["status"], "alive", "restarting it would not help");
    let order =
        json!({"verb": "get_system_health", "args": {}, "agent_targets": ["web-01"], "idempotency_key": "full"});
    let refused = cluster.api.post("/commands", &order)?;
    assert!(refused.status >= 500, "nothing is accepted that is not durable: {refused:?}");
    let metrics = cluster.api.get("/metrics")?.expect_status(200)?;
    assert!(metrics.as_str().is_some_and(|m| m.contains("viworks_backend_service_healthy{service=\"database\"} 0")));

    cluster.in_its_mounts(&["rm", &fill])?;
    shows(&cluster, &[])?;
    eventually("it is ready again", Duration::from_secs(10), || {
        Ok((ready(&cluster)?["status"] == "ready").then_some(()))
    })?;
    // The same key: it was not accepted before, or it is the same command.
    let accepted = cluster.api.post("/commands", &order)?;
    assert!(accepted.status < 300, "{accepted:?}");
    let all = cluster.api.get("/commands")?.expect_status(200)?;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1), "{all}");
    Ok(())
}

#[test]
fn a_locked_database_shows_and_recovers() -> Result {
    let cluster = Cluster::start()?;
    shows(&cluster, &[])?;
    let lock = rusqlite::Connection::open(cluster.path("backend/viworks.db")).map_err(Error::other)?;
    lock.execute_batch("BEGIN IMMEDIATE").map_err(Error::other)?;
    shows(&cluster, &["command_engine", "database"])?;
    assert_eq!(ready(&cluster)?["reasons"], json!(["store"]));
    lock.execute_batch("ROLLBACK").map_err(Error::other)?;
    shows(&cluster, &[])?;
    Ok(())
}

#[test]
fn a_certificate_that_ended_shows_until_it_is_replaced() -> Result {
    let cluster = Cluster::start()?;
    let expired = cluster.ca.expired_server().map_err(Error::other)?;
    let good = cluster.server.clone();
    for (identity, wanted) in [(&expired, &["certificate"][..]), (&good, &[][..])] {
        write_secret(&cluster.path("backend.key.pem"), &identity.key_pem)?;
        std::fs::write(cluster.path("backend.pem"), &identity.cert_pem)?;
        shows(&cluster, wanted)?;
    }
    Ok(())
}

#[test]
fn a_draining_backend_says_so_while_it_serves() -> Result {
    let mut cluster = Cluster::start_with(&Options { backend: "drain_notice_secs = 3".into() })?;
    assert_eq!(ready(&cluster)?, json!({"status": "ready", "reasons": []}));
    let port = format!("https://{}/health/ready", cluster.agents_addr);
    let asked = || run("/usr/bin/curl".as_ref(), ["-sSk", "--max-time", "5", port.as_str()]);
    assert!(asked()?.contains(r#""status":"ready""#));

    signal(cluster.backend.pid(), "TERM")?;
    eventually("it is not ready", Duration::from_secs(2), || {
        Ok((ready(&cluster)?["reasons"] == json!(["draining"])).then_some(()))
    })?;
    assert!(asked()?.contains("not_ready"), "the port for agents says so too");
    cluster.api.get("/agents")?.expect_status(200)?;
    assert!(cluster.backend.wait(Duration::from_secs(20))?.success());
    Ok(())
}
