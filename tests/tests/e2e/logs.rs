//! Logs in the Elastic Common Schema, shipped for real by rsyslog with the shipped
//! configuration to a bulk endpoint of the test's own (it stands for Elasticsearch and
//! answers no more than rsyslog asks): while that is away, nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Setup;
use viworks_tests::program::{Running, eventually, workspace};
use viworks_tests::receiver::{Receiver, Request};

use crate::Result;

/// What Elasticsearch says to a bulk request that it took whole.
fn bulk(request: &Request) -> String {
    if !request.path.contains("_bulk") {
        return "{}".to_owned();
    }
    let text = String::from_utf8_lossy(&request.body);
    let documents = text.lines().filter(|line| line.contains("\"create\"") && line.contains("\"_index\"")).count();
    let items: Vec<Value> = (0..documents).map(|_| json!({"create": {"status": 201}})).collect();
    json!({"took": 1, "errors": false, "items": items}).to_string()
}

/// The documents that came.
fn documents(receiver: &Receiver) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for request in receiver.requests().iter().filter(|request| request.path.contains("_bulk")) {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        found.extend(text.lines().filter(|line| line.contains("\"@timestamp\"")).map(str::to_owned));
    }
    found
}

/// rsyslog with the shipped configuration, but for its paths, port and waiting times.
fn rsyslog(dir: &Path, logs: &Path, audit: &Path, port: u16) -> std::io::Result<Running> {
    let shipped = fs::read_to_string(workspace().join("deploy/logging/rsyslog-viworks.conf"))?;
    let config = shipped
        .replace("/var/log/viworks/not-indexed.errors", &dir.join("errors").to_string_lossy())
        .replace("/var/log/viworks/*.log", &logs.join("*.log").to_string_lossy())
        .replace("/var/lib/viworks-gateway/audit.jsonl", &audit.to_string_lossy())
        .replace("serverport=\"9200\"", &format!("serverport=\"{port}\""))
        .replace("action.resumeInterval=\"5\"", "action.resumeInterval=\"1\"")
        // So that the disk is used at all by so few lines.
        .replace("queue.highwatermark=\"1000\"", "queue.highwatermark=\"20\"")
        .replace("queue.lowwatermark=\"200\"", "queue.lowwatermark=\"5\"");
    let global = format!("global(workDirectory=\"{}\")\n", dir.display());
    fs::write(dir.join("rsyslog.conf"), global + &config)?;
    let (config, pid) = (dir.join("rsyslog.conf"), dir.join("pid"));
    let args = ["-n".as_ref(), "-f".as_ref(), config.as_os_str(), "-i".as_ref(), pid.as_os_str()];
    Running::start("/usr/sbin/rsyslogd".as_ref(), args, &dir.join("rsyslog.out"))
}

#[test]
fn nothing_is_lost_on_the_way_to_the_bulk_endpoint_that_stands_for_elasticsearch() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "log_format = \"ecs\"".into() })?;
    cluster.publish("health")?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.keys = "log_format = \"ecs\"\n".into();
    let gateway = setup.start(&cluster)?;
    cluster.ready("web-01", 1)?;
    let audit = gateway.dir.join("state/audit.jsonl");

    let dir = tempfile::Builder::new().prefix("viw-rsyslog-").tempdir_in("/var/tmp")?;
    let mut endpoint = Receiver::start(None, bulk)?;
    let port = endpoint.port();
    let _shipper = rsyslog(dir.path(), cluster.dir(), &audit, port)?;
    let run = || cluster.run("web-01", "get_system_health", &json!({}));
    run()?;
    let mut arrived = eventually("the first lines", Duration::from_secs(30), || {
        let found = documents(&endpoint);
        Ok(found.iter().any(|line| line.contains("get_system_health")).then_some(found))
    })?;

    // It goes away, and much happens meanwhile.
    drop(endpoint);
    for _ in 0..60 {
        run()?;
    }
    eventually("the queue goes to the disk", Duration::from_secs(20), || {
        let files = fs::read_dir(dir.path())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(files.into_iter().any(|name| name.starts_with("viworks-elasticsearch.")).then_some(()))
    })?;
    endpoint = Receiver::start(Some(port), bulk)?;

    let lines = || -> std::io::Result<BTreeSet<String>> {
        let text = fs::read_to_string(cluster.path("backend.log"))? + &fs::read_to_string(&audit)?;
        Ok(text.lines().filter(|line| line.contains("\"@timestamp\"")).map(str::to_owned).collect())
    };
    eventually("every line arrives", Duration::from_secs(60), || {
        arrived.extend(documents(&endpoint));
        let missing = lines()?.difference(&arrived).count();
        if missing == 0 { Ok(Some(())) } else { Err(Error::other(format!("{missing} are missing"))) }
    })?;

    let all: Vec<Value> = arrived.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(all.len(), arrived.len(), "each is a document");
    for line in &all {
        for field in ["@timestamp", "log.level", "message", "ecs.version", "service.name", "event.dataset"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
    }
    let of = |field: &str, value: &str| all.iter().filter(|line| line[field] == value).count();
    assert!(of("event.action", "command.accept") >= 61, "the backend's audit entries are among them");
    assert!(of("service.name", "viworks-gateway") >= 61, "and the gateway's audit log");
    assert!(all.iter().any(|line| line["service.node.name"] == "web-01" && line["event.dataset"] == "viworks.audit"));
    Ok(())
}
