//! Delivery: offline agents, expiry, cancel, batches, events.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::{Gateway, Setup};

use crate::Result;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_offline_agent_gets_its_command_when_it_returns() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    gateway.process.terminate(SOON)?;

    let body =
        json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "expires_in_secs": 300});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let waiting = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
    assert_eq!(waiting["counts"]["queued"], 1, "{waiting}");

    gateway.restart()?;
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    Ok(())
}

#[test]
fn what_was_never_delivered_expires() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    gateway.process.terminate(SOON)?;
    let body = json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "expires_in_secs": 1});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["expired"], 1, "{done}");

    gateway.restart()?;
    cluster.ready("web-01", 1)?;
    let listed = cluster.run("web-01", "list_users", &json!({}))?;
    assert_eq!(listed["result"], json!([]), "an expired command never runs");
    Ok(())
}

#[test]
fn a_running_verb_is_cancelled() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish_guest("nap")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let body = json!({"verb": "nap", "args": {"ms": 50_000}, "agent_targets": ["web-01"], "timeout_secs": 60});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    viworks_tests::program::eventually("running", SOON, || {
        let body = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
        Ok((body["counts"]["running"] == 1).then_some(()))
    })?;
    cluster.api.post(&format!("/commands/{id}/cancel"), &json!({}))?.expect_status(202)?;
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["cancelled"], 1, "{done}");
    Ok(())
}

#[test]
fn events_stream_and_resume() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let _one = Gateway::start(&cluster, "web-01")?;
    let _two = Setup::new(&cluster, "web-02")?.start(&cluster)?;
    cluster.ready("web-01", 1)?;
    cluster.ready("web-02", 1)?;
    let body = json!({"verb": "list_users", "args": {}, "selector": {"site": "tests"}});
    let accepted = cluster.api.post("/commands", &body)?.expect_status(202)?;
    assert_eq!(accepted["targets"], 2);
    let id = accepted["id"].as_str().unwrap_or_default();

    let read = |last: Option<&str>| -> std::io::Result<Vec<String>> {
        let token = cluster.token(&format!("sse-{}", last.unwrap_or("0")), "viewer")?;
        let mut request = ureq::get(format!("{}/commands/{id}/events", cluster.api.url()))
            .config()
            .timeout_global(Some(SOON))
            .build()
            .header("Authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.call().map_err(std::io::Error::other)?;
        BufReader::new(response.into_body().into_reader()).lines().collect()
    };
    let all = read(None)?;
    let count = |lines: &[String], what: &str| lines.iter().filter(|l| l.as_str() == what).count();
    assert_eq!(count(&all, "event: invocation"), 2, "{all:#?}");
    assert_eq!(count(&all, "event: finished"), 1);
    let first = all.iter().find_map(|l| l.strip_prefix("id: ").or_else(|| l.strip_prefix("id:"))).unwrap_or_default();
    let rest = read(Some(first.trim()))?;
    assert_eq!(count(&rest, "event: invocation"), 1, "only what came after: {rest:#?}");
    Ok(())
}
