//! Hostile guests: each is ended with a typed outcome, and the gateway serves the next
//! invocation as if nothing had been.

use std::io::Error;

use serde_json::{Value, json};
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::{Gateway, Setup};

use crate::Result;

#[test]
fn each_attack_ends_typed_and_the_next_invocation_is_served() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    cluster.publish_guest("hostile")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 2)?;

    let attacks: [(&str, Value, &[&str]); 10] = [
        ("endless_loop", json!({}), &["limit", "timeout"]),
        ("memory_grab", json!({"mib": 512}), &["limit", "trap"]),
        ("deep_recursion", json!({"depth": 4_000_000_000u32}), &["trap", "limit"]),
        ("giant_output", json!({"kib": 8192}), &["limit"]),
        ("giant_failure", json!({"kib": 8192}), &["limit", "failed", "trap"]),
        ("host_call_flood", json!({"calls": 1_000_000}), &["limit"]),
        ("progress_flood", json!({"reports": 1_000_000}), &["limit"]),
        ("effect_flood", json!({"effects": 1_000_000}), &["failed", "limit", "denied", "timeout"]),
        ("trap", json!({"text": "the panic's own words"}), &["trap"]),
        ("exit", json!({"code": 3}), &["trap", "failed"]),
    ];
    for (verb, args, codes) in attacks {
        let ended = cluster.run("web-01", verb, &args)?;
        assert_ne!(ended["state"], "succeeded", "{verb}: {ended}");
        let code = ended["failure"]["code"].as_str().unwrap_or_default();
        assert!(codes.contains(&code), "{verb}: wanted one of {codes:?}: {ended}");
        assert!(ended.to_string().len() < 1 << 20, "{verb}: what operators get is bounded");
        if verb == "trap" {
            assert!(ended.to_string().contains("the panic's own words"), "a panic can be read: {ended}");
        }
        let next = cluster.run("web-01", "list_users", &json!({}))?;
        assert_eq!(next["state"], "succeeded", "after {verb}: {next}");
    }
    assert!(gateway.process.rss_kib()? < 512 * 1024, "the gateway's memory stayed bounded");

    let bomb = cluster.run("web-01", "memory_bomb", &json!({"mib": 4096}))?;
    assert!(bomb["result"].as_u64().is_none_or(|mib| mib < 16), "never more than the limit: {bomb}");
    let logged = cluster.run("web-01", "giant_log", &json!({"lines": 1000, "kib": 4}))?;
    assert!(logged["log"].to_string().len() < 128 * 1024, "the log is cut at its limit");
    let sight = cluster.run("web-01", "look_around", &json!({}))?;
    assert_eq!(sight["result"]["environment"], json!([]), "{sight}");
    assert_eq!(sight["result"]["input"], "");
    Ok(())
}

#[test]
fn a_read_verb_with_an_effect_is_denied() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish_guest("read-effect")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let ended = cluster.run("web-01", "peek", &json!({"key": "k"}))?;
    assert_eq!(ended["state"], "denied", "{ended}");
    assert_eq!(ended["failure"]["rule"], "release: verb effect is read");
    Ok(())
}

#[test]
fn wasi_shows_no_files_and_no_network() -> Result {
    let cluster = Cluster::start()?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    for (guest, import) in [("files", "wasi:filesystem/"), ("sockets", "wasi:sockets/")] {
        cluster.publish_guest(guest)?;
        let plugin = viworks_tests::program::eventually(guest, std::time::Duration::from_secs(30), || {
            let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
            let all = body["plugins"].as_array().cloned().unwrap_or_default();
            Ok(all.into_iter().find(|p| p["plugin"] == guest && p["state"] != "fetching"))
        })?;
        assert_eq!(plugin["state"], "refused", "{plugin}");
        assert!(plugin["detail"].as_str().is_some_and(|detail| detail.contains(import)), "{plugin}");
    }
    Ok(())
}

#[test]
fn an_ungranted_capability_does_not_load_and_names_itself() -> Result {
    let cluster = Cluster::start()?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.policy = "[capabilities.system]\n".to_owned();
    let _gateway = setup.start(&cluster)?;
    cluster.publish_guest("undeclared")?;
    let refused = viworks_tests::program::eventually("refused", std::time::Duration::from_secs(30), || {
        let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let all = body["plugins"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().find(|p| p["state"] == "refused"))
    })
    .map_err(|e| Error::other(format!("an ungranted import was loaded: {e}")))?;
    assert!(refused["detail"].as_str().is_some_and(|d| d.contains("accounts")), "{refused}");
    Ok(())
}

#[test]
fn many_small_memories_and_tables_share_one_limit() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish_guest("growth")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let before = gateway.process.rss_kib()?;
    // Eight of each would like 64 MiB; together they may have 16.
    let memories = cluster.run("web-01", "grow_memories", &json!({}))?;
    assert!(memories["result"].as_u64().is_none_or(|mib| mib < 16), "{memories}");
    let tables = cluster.run("web-01", "grow_tables", &json!({}))?;
    // 100,000 elements are at least 400 KiB.
    assert!(tables["result"].as_u64().is_none_or(|times| times <= 40), "{tables}");
    assert!(gateway.process.rss_kib()? < before + 64 * 1024, "the gateway's memory stayed bounded");
    Ok(())
}

#[test]
fn more_instances_than_the_release_allows_do_not_load() -> Result {
    let cluster = Cluster::start()?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.publish_guest("crowd")?;
    let plugin = viworks_tests::program::eventually("an end", std::time::Duration::from_secs(30), || {
        let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let all = body["plugins"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().find(|p| p["state"] != "fetching"))
    })?;
    if plugin["state"] != "refused" {
        let ended = cluster.run("web-01", "count_instances", &json!({}))?;
        assert_ne!(ended["state"], "succeeded", "25 instances where 20 are allowed: {ended}");
    }
    Ok(())
}
