//! Proof of what was done: receipts of a real gateway, taken away in a file and checked
//! without the backend; what was done to the file shows.

use std::fs;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cli::Operator;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::program::eventually;

use crate::Result;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_export_holds_and_what_was_done_to_it_shows() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "anchor_secs = 1".into() })?;
    cluster.publish("accounts")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let admin = Operator::of(&cluster, "admin")?;
    for name in ["ada", "bob", "eve"] {
        let done = cluster.run("web-01", "add_user", &json!({"name": name}))?;
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    eventually("three receipts are anchored", SOON, || {
        let agent = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let anchors = cluster.api.get("/receipts/anchors")?.expect_status(200)?;
        let anchored = anchors["items"].as_array().is_some_and(|all| !all.is_empty());
        Ok((agent["receipts"]["last"].as_u64() >= Some(3) && anchored).then_some(()))
    })?;
    // One more anchor interval, so that the last head is in one.
    let seen = cluster.api.get("/agents/web-01")?.expect_status(200)?["receipts"].clone();
    assert_eq!(seen["missing"], 0, "{seen}");

    let file = cluster.path("receipts.jsonl");
    let key = cluster.path("backend/warrant.pub.pem").to_string_lossy().into_owned();
    let verify =
        |path: &std::path::Path| admin.types(&["receipts", "verify", &path.to_string_lossy(), "--warrant-keys", &key]);
    eventually("an anchor has the last head", SOON, || {
        let _ = fs::remove_file(&file);
        assert_eq!(admin.types(&["receipts", "export", &file.to_string_lossy()])?.code, Some(0));
        let (_, summary) = admin.json(&["receipts", "verify", &file.to_string_lossy(), "--warrant-keys", &key])?;
        let lasting = summary["chains"].as_array().into_iter().flatten().find(|c| c["boot"].is_null()).cloned();
        Ok(lasting.filter(|chain| chain["anchored"] == chain["last"]["seq"]))
    })?;
    let sound = verify(&file)?;
    assert_eq!(sound.code, Some(0), "{} {}", sound.stdout, sound.stderr);

    let text = fs::read_to_string(&file)?;
    let lasting: Vec<usize> = (text.lines().enumerate())
        .filter(|(_, line)| line.starts_with(r#"{"receipt""#))
        .map(|(place, _)| place)
        .collect();
    let lines: Vec<&str> = text.lines().collect();
    let written = |name: &str, lines: &[&str]| {
        let path = cluster.path(name);
        fs::write(&path, lines.join("\n"))?;
        std::io::Result::Ok(path)
    };
    let mut swapped = lines.clone();
    swapped.swap(lasting[0], lasting[1]);
    let out = verify(&written("swapped.jsonl", &swapped)?)?;
    assert_eq!(out.code, Some(1), "reordered: {}", out.stdout);
    let mut cut = lines.clone();
    cut.remove(lasting[1]);
    let out = verify(&written("cut.jsonl", &cut)?)?;
    assert_eq!(out.code, Some(1), "taken out: {}", out.stdout);
    let tampered = lines[lasting[0]].replacen("\"payload\":\"ey", "\"payload\":\"ez", 1);
    let mut changed = lines.clone();
    changed[lasting[0]] = &tampered;
    let out = verify(&written("changed.jsonl", &changed)?)?;
    assert_eq!(out.code, Some(1), "tampered with: {}", out.stdout);
    let out = admin.types(&["receipts", "verify", &file.to_string_lossy()])?;
    assert_eq!(out.code, Some(2), "an export does not vouch for itself");
    Ok(())
}
