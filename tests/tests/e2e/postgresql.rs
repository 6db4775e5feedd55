//! PostgreSQL behind the store: the usual journey, `kill -9` in mid-command, and a server
//! that hangs, crashes and comes back under the backend's feet.

use std::collections::BTreeSet;
use std::fs;
use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::postgres::Server;
use viworks_tests::program::{eventually, program, run, signal};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

fn on(server: &Server) -> std::io::Result<Cluster> {
    let backend = format!("database_url = {:?}\n", server.database()?);
    let cluster = Cluster::start_with(&Options { backend })?;
    assert!(!cluster.path("backend/viworks.db").exists(), "the store is in PostgreSQL alone");
    Ok(cluster)
}

fn accounts(gateway: &Gateway) -> Vec<String> {
    let passwd = fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default();
    passwd.lines().filter_map(|line| line.split(':').next()).map(str::to_owned).collect()
}

fn add(name: &str) -> Value {
    json!({"verb": "add_user", "args": {"name": name}, "agent_targets": ["web-01"], "expires_in_secs": 600})
}

fn id(command: &Value) -> String {
    command["id"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_usual_journey_and_a_killed_backend() -> Result {
    let server = Server::start()?;
    let mut cluster = on(&server)?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;

    let args = json!({"name": "ada"});
    let (plan, planned) = cluster.plan("web-01", "add_user", &args)?;
    assert_eq!(planned["state"], "succeeded", "{planned}");
    let (command, applied) = cluster.apply("web-01", "add_user", &args, &plan)?;
    assert_eq!(applied["state"], "succeeded", "{applied}");
    assert!(accounts(&gateway).contains(&"ada".to_owned()));
    let undone = cluster.undo(&command, "apply")?;
    assert_eq!(undone["state"], "succeeded", "{undone}");
    assert!(!accounts(&gateway).contains(&"ada".to_owned()));
    eventually("its receipts are followed", SOON, || {
        let agent = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let chain = &agent["receipts"];
        if chain["last"] == 2 && chain["missing"] == 0 { Ok(Some(())) } else { Err(Error::other(agent.to_string())) }
    })?;
    for path in ["/commands", "/plugins", "/audit", "/tokens", "/verbs", "/receipts", "/agents?site=tests"] {
        let listed = cluster.api.get(path)?.expect_status(200)?;
        assert!(!listed["items"].as_array().is_none_or(Vec::is_empty), "{path}: {listed}");
    }

    // Accepted, and not answered yet.
    signal(gateway.process.pid(), "STOP")?;
    let open = id(&cluster.api.post("/commands", &add("grace"))?.expect_status(202)?);
    cluster.backend.kill()?;
    signal(gateway.process.pid(), "CONT")?;
    cluster.restart_backend()?;
    let done = cluster.finished(&open, SOON)?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    assert_eq!(accounts(&gateway).iter().filter(|name| *name == "grace").count(), 1);
    Ok(())
}

/// Post until told to stop; the ids of those that were accepted.
fn load(cluster: &Cluster, stop: &AtomicBool, prefix: &str) -> std::io::Result<Vec<(String, String)>> {
    let mut accepted = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{prefix}{n}");
        // With a key, so that what was accepted without an answer is found again.
        let mut body = add(&name);
        body["idempotency_key"] = json!(name);
        let answer = cluster.api.post("/commands", &body)?;
        match answer.status {
            202 => accepted.push((name, id(&answer.body))),
            429 | 503 => assert!(answer.retry_after.is_some(), "{answer:?}"),
            _ => return Err(Error::other(format!("{answer:?}"))),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(accepted)
}

fn health(cluster: &Cluster, status: &str) -> std::io::Result<()> {
    eventually(&format!("the database is {status}"), SOON, || {
        let answer = cluster.api.get("/health")?;
        let code = if status == "healthy" { 200 } else { 503 };
        if answer.status == code && answer.body["services"]["database"]["status"] == status {
            return Ok(Some(()));
        }
        Err(Error::other(format!("{answer:?}")))
    })
}

#[test]
fn a_server_that_hangs_and_stops_loses_no_command() -> Result {
    let server = Server::start()?;
    let cluster = on(&server)?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let pid = cluster.backend.pid();
    health(&cluster, "healthy")?;

    let stop = AtomicBool::new(false);
    let accepted = std::thread::scope(|scope| {
        let posting = scope.spawn(|| load(&cluster, &stop, "u"));
        let trouble = || -> std::io::Result<()> {
            std::thread::sleep(Duration::from_secs(1));
            // It hangs: connections stay, and nothing answers.
            let hanging = server.processes()?;
            for process in &hanging {
                signal(*process, "STOP")?;
            }
            let told = health(&cluster, "degraded");
            for process in &hanging {
                signal(*process, "CONT")?;
            }
            told?;
            health(&cluster, "healthy")?;
            std::thread::sleep(Duration::from_secs(1));
            // It crashes, and is gone for a while.
            server.crash()?;
            health(&cluster, "degraded")?;
            std::thread::sleep(Duration::from_secs(3));
            server.start_again()?;
            health(&cluster, "healthy")?;
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        };
        let troubled = trouble();
        stop.store(true, Ordering::Relaxed);
        let accepted = posting.join().map_err(|_| Error::other("posting panicked"))?;
        troubled.and(accepted)
    })?;
    assert!(accepted.len() > 10, "{} were accepted", accepted.len());
    for (name, id) in &accepted {
        let done = cluster.finished(id, SOON)?;
        assert_eq!(done["counts"]["succeeded"], 1, "{name}: {done}");
    }
    let there = accounts(&gateway);
    let distinct: BTreeSet<&String> = there.iter().collect();
    assert_eq!(there.len(), distinct.len(), "nothing was done twice");
    assert!(accepted.iter().all(|(name, _)| there.contains(name)));
    assert_eq!(cluster.backend.pid(), pid, "the same process as before");
    Ok(())
}

#[test]
fn a_site_moves_from_its_file_to_postgresql() -> Result {
    let server = Server::start()?;
    let mut cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let (command, before) = cluster.apply_now("web-01", "add_user", &json!({"name": "ada"}))?;
    assert_eq!(before["state"], "succeeded", "{before}");
    let url = server.database()?;
    let config = cluster.path("backend.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("database_url = {url:?}\n{text}"))?;
    let file = cluster.path("backend/viworks.db");
    let import = || {
        let args = ["import".as_ref(), "--config".as_ref(), config.as_os_str(), "--from".as_ref(), file.as_os_str()];
        run(&program("viworks-backend")?, args)
    };
    let Err(refused) = import() else { panic!("imported from under a running backend") };
    assert!(refused.to_string().contains("stop it first"), "{refused}");
    cluster.backend.terminate(SOON)?;
    let told = import()?;
    assert!(told.contains("commands\t1\n"), "{told}");
    cluster.restart_backend()?;
    cluster.ready("web-01", 1)?;
    let kept = cluster.api.get(&format!("/commands/{command}"))?.expect_status(200)?;
    assert_eq!(kept["counts"]["succeeded"], 1, "{kept}");
    // Its effects are known there, and are taken back.
    let undone = cluster.undo(&command, "apply")?;
    assert_eq!(undone["state"], "succeeded", "{undone}");
    assert!(!accounts(&gateway).contains(&"ada".to_owned()));
    let tables = server.sql(
        url.split('/').nth(3).and_then(|d| d.split('?').next()).unwrap_or_default(),
        "SELECT count(*) FROM commands",
    )?;
    assert_eq!(tables.trim(), "2");
    Ok(())
}
