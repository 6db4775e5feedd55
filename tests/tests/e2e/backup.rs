//! Backup and restore: of a store that is written to, onto both engines, with agents that
//! did more since.

use std::fs;
use std::io::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::postgres::Server;
use viworks_tests::program::{eventually, program, run, signal};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

fn add(name: &str) -> Value {
    json!({"verb": "add_user", "args": {"name": name}, "agent_targets": ["web-01"], "expires_in_secs": 600})
}

fn post(cluster: &Cluster, name: &str) -> std::io::Result<String> {
    let body = cluster.api.post("/commands", &add(name))?.expect_status(202)?;
    Ok(body["id"].as_str().unwrap_or_default().to_owned())
}

fn tool(cluster: &Cluster, line: &[&str]) -> std::io::Result<String> {
    let config = cluster.path("backend.toml");
    let args = line.iter().map(AsRef::<std::ffi::OsStr>::as_ref).chain(["--config".as_ref(), config.as_os_str()]);
    run(&program("viworks-backend")?, args)
}

fn chain(cluster: &Cluster, last: u64, missing: u64) -> std::io::Result<()> {
    eventually(&format!("a chain of {last} without {missing}"), SOON, || {
        let agent = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let chain = &agent["receipts"];
        let good = chain["last"] == last && chain["missing"] == missing;
        if good { Ok(Some(())) } else { Err(Error::other(agent.to_string())) }
    })
}

/// Three are done before; two are under way at the backup and end after it; three come
/// after it, of which the lost store alone knew.
fn lose_and_restore(mut cluster: Cluster, renew: impl FnOnce(&Cluster) -> std::io::Result<()>) -> Result {
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    for name in ["a1", "a2", "a3"] {
        let done = cluster.run("web-01", "add_user", &json!({"name": name}))?;
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    chain(&cluster, 3, 0)?;
    signal(gateway.process.pid(), "STOP")?;
    let under_way = [post(&cluster, "b1")?, post(&cluster, "b2")?];
    let out = cluster.path("viworks.backup");
    let out = out.to_string_lossy();
    // Commands come while it is written.
    let (told, during) = std::thread::scope(|scope| {
        let posting = scope.spawn(|| post(&cluster, "c1"));
        let told = tool(&cluster, &["backup", "--out", &out]);
        (told, posting.join())
    });
    let during = during.map_err(|_| Error::other("posting panicked"))??;
    assert!(told?.contains("warrant.key.pem"));
    assert_eq!(fs::metadata(&*out)?.permissions().mode() & 0o777, 0o600);
    signal(gateway.process.pid(), "CONT")?;
    for id in under_way.iter().chain([&during]) {
        assert_eq!(cluster.finished(id, SOON)?["counts"]["succeeded"], 1);
    }
    let after = [post(&cluster, "d1")?, post(&cluster, "d2")?];
    for id in &after {
        cluster.finished(id, SOON)?;
    }
    chain(&cluster, 8, 0)?;
    let passwd = || fs::read_to_string(gateway.root("/etc/passwd"));
    let before = passwd()?;

    // All is lost but the backup.
    cluster.backend.kill()?;
    fs::rename(cluster.path("backend"), cluster.path("lost"))?;
    renew(&cluster)?;
    let told = tool(&cluster, &["restore", &out])?;
    assert!(told.contains("restored the state of "), "{told}");
    let key = cluster.path("backend/warrant.key.pem");
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&key)?, fs::read(cluster.path("lost/warrant.key.pem"))?);
    let Err(refused) = tool(&cluster, &["restore", &out]) else { panic!("restored over a store") };
    assert!(refused.to_string().contains("not empty"), "{refused}");
    cluster.restart_backend()?;
    cluster.ready("web-01", 1)?;

    // What was under way is asked again, and answered from memory: doing it again would fail.
    for id in &under_way {
        let done = cluster.finished(id, SOON)?;
        assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    }
    assert_eq!(passwd()?, before, "nothing was done again");
    for id in &after {
        assert_eq!(cluster.api.get(&format!("/commands/{id}"))?.status, 404, "the lost store's");
    }
    // The chain goes on; what only the lost store had is missing, and said to be for that.
    let done = cluster.run("web-01", "add_user", &json!({"name": "e1"}))?;
    assert_eq!(done["state"], "succeeded", "{done}");
    let agent = eventually("the chain goes on", SOON, || {
        let agent = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        if agent["receipts"]["last"] == 9 { Ok(Some(agent)) } else { Err(Error::other(agent.to_string())) }
    })?;
    let missing = agent["receipts"]["missing"].as_u64().unwrap_or_default();
    assert!((2..=3).contains(&missing), "{agent}");
    let audit = cluster.api.get("/audit?limit=200")?.expect_status(200)?.to_string();
    assert!(audit.contains("store.restore") && audit.contains("are not held since the store was restored"), "{audit}");
    assert!(!audit.contains("contradicts"), "{audit}");
    let metrics = cluster.api.get("/metrics")?.expect_status(200)?;
    let text = metrics.as_str().unwrap_or_default();
    let gap = text.lines().find(|line| line.starts_with("viworks_backend_receipt_faults_total{kind=\"gap\"}"));
    assert_eq!(gap.and_then(|line| line.split(' ').next_back()), Some("0"), "{gap:?}");
    Ok(())
}

#[test]
fn a_lost_file_comes_back_from_its_backup() -> Result {
    lose_and_restore(Cluster::start()?, |_| Ok(()))
}

#[test]
fn a_lost_postgresql_comes_back_in_a_new_one() -> Result {
    let (server, new) = (Server::start()?, Server::start()?);
    let url = server.database()?;
    let cluster = Cluster::start_with(&Options { backend: format!("database_url = {url:?}\n") })?;
    let other = new.database()?;
    lose_and_restore(cluster, |cluster| {
        server.crash()?;
        let config = cluster.path("backend.toml");
        fs::write(&config, fs::read_to_string(&config)?.replace(&url, &other))
    })
}
