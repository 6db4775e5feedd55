//! The next release planned beside the one that serves, on real gateways under load: one
//! that would do something else reaches nobody, one that does the same becomes the active one.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cli::Operator;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{component, eventually, workspace};

use crate::Result;

const SOON: Duration = Duration::from_secs(90);

/// A signed bundle of a release of `accounts`: this component, under this number.
fn bundle(cluster: &Cluster, wasm: &Path, number: u32) -> std::io::Result<PathBuf> {
    let manifest = fs::read_to_string(workspace().join("plugins/accounts/plugin.toml"))?
        .replace("version = \"1.0.0\"", &format!("version = \"1.{number}.0\""))
        .replace("sequence = 1", &format!("sequence = {number}"));
    let at = cluster.path(&format!("accounts-{number}.toml"));
    fs::write(&at, manifest)?;
    let wit = [workspace().join("wit"), workspace().join("plugins/accounts/wit")];
    cluster.sign(wasm, &at, &wit, &cluster.path("keys/release.key.pem"))
}

fn staged(admin: &Operator, bundle: &Path) -> std::io::Result<String> {
    let (code, plugin) = admin.json(&["plugins", "publish", &bundle.to_string_lossy(), "--stage"])?;
    assert_eq!((code, plugin["state"].as_str()), (Some(0), Some("staged")), "{plugin}");
    Ok(plugin["digest"].as_str().unwrap_or_default().to_owned())
}

fn begin(admin: &Operator, version: &str) -> std::io::Result<Value> {
    let (code, begun) = admin.json(&[
        "plugins",
        "rollout",
        "accounts",
        "--to",
        version,
        "--shadow",
        "100%:2s",
        "--shadow-min",
        "4",
        "--stages",
        "1:0,100%:0",
    ])?;
    assert_eq!((code, begun["shadowing"].as_bool()), (Some(0), Some(true)), "{begun}");
    Ok(begun)
}

/// Add accounts on every agent, one after the other, while `meanwhile` is awaited; gives
/// how many there are on each then.
fn under_load<T>(
    cluster: &Cluster,
    added: &AtomicU32,
    meanwhile: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let load = threads.spawn(|| -> std::io::Result<()> {
            while !over.load(Ordering::Relaxed) {
                let n = added.fetch_add(1, Ordering::Relaxed);
                let args = json!({"name": format!("user{n}"), "groups": ["users"]});
                let body = json!({"verb": "add_user", "args": args, "selector": {"all": true}, "wait_secs": 40});
                let ran = cluster.api.post("/commands", &body)?.expect_status(200)?;
                assert_eq!(ran["counts"]["succeeded"], 2, "a shadow is in nobody's way: {ran}");
            }
            Ok(())
        });
        let done = meanwhile();
        over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| Error::other("the load failed"))??;
        done
    })
}

#[test]
fn one_that_departs_is_halted_and_one_that_does_not_is_promoted() -> Result {
    let cluster = Cluster::start()?;
    let first = cluster.publish("accounts")?["digest"].as_str().unwrap_or_default().to_owned();
    let gateways = [Gateway::start(&cluster, "web-01")?, Gateway::start(&cluster, "web-02")?];
    cluster.ready("web-01", 1)?;
    cluster.ready("web-02", 1)?;
    let admin = Operator::of(&cluster, "admin")?;
    let added = AtomicU32::new(0);

    // The second release forgets the groups.
    let apart = component("tests/guests", "viworks_guest_accounts_apart")?;
    let second = staged(&admin, &bundle(&cluster, &apart, 2)?)?;
    let begun = begin(&admin, "1.2.0")?;
    let path = format!("/plugins/accounts/rollouts/{}", begun["id"].as_str().unwrap_or_default());
    let halted = under_load(&cluster, &added, || {
        eventually("it is halted", SOON, || {
            let of = cluster.api.get(&path)?.expect_status(200)?;
            if of["state"] == "halted" { Ok(Some(of)) } else { Err(Error::other(of.to_string())) }
        })
    })?;
    let reason = halted["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("shadow: add_user departed in ") && reason.contains("groups: nothing instead of users"),
        "{halted}"
    );
    let verb = &halted["shadow"]["verbs"]["add_user"];
    let sample = &verb["samples"][0];
    assert_eq!((&sample["lines"][0]["field"], &sample["lines"][0]["active"]), (&json!("groups"), &json!("users")));
    assert!(sample["agent"].as_str().is_some_and(|a| a.starts_with("web-0")), "{sample}");
    assert!(halted["members"]["have"].as_u64() > Some(0) && halted["finished"].is_null(), "{halted}");
    let active = cluster.api.get("/verbs/add_user")?.expect_status(200)?;
    assert_eq!(active["digest"], first.as_str(), "nobody has the second release: {second}");

    // A publisher can't overrule it; an administrator may end it.
    let publisher = cluster.api.with_token(Some(&cluster.token("pat", "publisher")?));
    assert_eq!(publisher.post(&format!("{path}/resume"), &json!({}))?.problem(403)?, "forbidden");
    let (code, aborted) = admin.json(&["plugins", "abort", "accounts"])?;
    assert_eq!((code, aborted["state"].as_str()), (Some(0), Some("aborted")), "{aborted}");

    // The third has the first one's code, in other bytes: a custom section more.
    let mut bytes = fs::read(component("plugins", "viworks_plugin_accounts")?)?;
    bytes.extend(b"\x00\x08\x04next\x01\x02\x03");
    let wasm = cluster.path("accounts-3.wasm");
    fs::write(&wasm, bytes)?;
    let third = staged(&admin, &bundle(&cluster, &wasm, 3)?)?;
    assert_ne!(third, first);
    begin(&admin, "1.3.0")?;
    let watched = under_load(&cluster, &added, || admin.types(&["plugins", "rollouts", "accounts", "--watch"]))?;
    assert_eq!(watched.code, Some(0), "{} {}", watched.stdout, watched.stderr);
    assert!(watched.stdout.contains("shadow add_user: ") && watched.stdout.contains("plan it"), "{}", watched.stdout);
    assert!(watched.stdout.lines().last().is_some_and(|l| l.contains("succeeded")), "{}", watched.stdout);
    let active = cluster.api.get("/verbs/add_user")?.expect_status(200)?;
    assert_eq!((active["digest"].as_str(), active["version"].as_str()), (Some(third.as_str()), Some("1.3.0")));

    // Every command happened once on each host, and as the releases that served do it.
    let added = added.load(Ordering::Relaxed) as usize;
    for gateway in &gateways {
        let passwd = fs::read_to_string(gateway.root("/etc/passwd"))?;
        assert_eq!(passwd.matches(":/home/user").count(), added, "{passwd}");
        let groups = fs::read_to_string(gateway.root("/etc/group"))?;
        let users = groups.lines().find(|line| line.starts_with("users:")).unwrap_or_default();
        assert_eq!(users.rsplit(':').next().unwrap_or_default().split(',').count(), added, "{users}");
    }
    let audit = cluster.api.get("/audit?limit=1000")?.expect_status(200)?.to_string();
    assert!(audit.contains("rollout.halted") && audit.contains("rollout.succeeded"), "{audit}");
    let text = cluster.api.get("/metrics")?;
    assert_eq!(text.status, 200);
    Ok(())
}
