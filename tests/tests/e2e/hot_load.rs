//! A release after another under steady commands: nothing is dropped, whichever of two the
//! host has active as a command comes.

use std::fs;
use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{component, eventually, workspace};

use crate::Result;

/// Sign the `n`th release of the echo guest and publish it.
fn publish(cluster: &Cluster, n: u8) -> std::io::Result<String> {
    let dir = cluster.path(&format!("echo-{n}"));
    fs::create_dir_all(&dir)?;
    let mut bytes = fs::read(component("tests/guests", "viworks_guest_echo")?)?;
    // A custom section: other bytes that do the same.
    bytes.extend_from_slice(&[0, 3, 1, b'n', n]);
    fs::write(dir.join("echo.wasm"), bytes)?;
    let manifest = fs::read_to_string(workspace().join("tests/guests/echo/plugin.toml"))?;
    let manifest = manifest.replace("sequence = 1", &format!("sequence = {n}"));
    fs::write(dir.join("plugin.toml"), manifest.replace("\"1.0.0\"", &format!("\"1.0.{n}\"")))?;
    let key = cluster.path("keys/release.key.pem");
    let bundle = cluster.sign(&dir.join("echo.wasm"), &dir.join("plugin.toml"), &[], &key)?;
    let published = cluster.upload(&bundle)?.expect_status(201)?;
    Ok(published["digest"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn twenty_swaps_under_steady_commands_fail_none_of_them() -> Result {
    let cluster = Cluster::start()?;
    publish(&cluster, 1)?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let done = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        let swaps = scope.spawn(|| -> std::io::Result<()> {
            let swapped = (2..=21).try_for_each(|n| {
                let digest = publish(&cluster, n)?;
                eventually("the release is active", Duration::from_secs(60), || {
                    let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
                    let active = |p: &serde_json::Value| p["digest"] == digest.as_str() && p["state"] == "active";
                    Ok(body["plugins"].as_array().is_some_and(|all| all.iter().any(active)).then_some(()))
                })
            });
            done.store(true, Ordering::Release);
            swapped
        });
        let mut ran = 0;
        while !done.load(Ordering::Acquire) {
            let ended = cluster.run("web-01", "ping", &json!({"text": "steady"}))?;
            if ended["state"] != "succeeded" {
                return Err(Error::other(format!("after {ran}: {ended}\n{}", gateway.process.log_tail())));
            }
            ran += 1;
        }
        swaps.join().map_err(|_| Error::other("publishing panicked"))??;
        Ok(ran)
    })?;
    assert!(ran >= 20, "{ran} commands are no load");
    Ok(())
}

#[test]
fn another_policy_counts_without_a_restart_and_a_broken_one_does_not() -> Result {
    let cluster = Cluster::start()?;
    publish(&cluster, 1)?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let policy = gateway.dir.join("policy.toml");
    let first = fs::read_to_string(&policy)?;
    let echo = |what: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        eventually(what, Duration::from_secs(30), || {
            let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
            let all = body["plugins"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().any(|p| p["plugin"] == "echo" && wanted(p)).then_some(()))
        })
    };

    fs::write(&policy, format!("plugins = [\"vpn-*\"]\n{first}"))?;
    echo("echo is refused", &|p| p["detail"].as_str().is_some_and(|d| d.starts_with("E_POLICY_PLUGIN: admit: ")))?;
    let refused = cluster.run("web-01", "ping", &json!({"text": "x"}))?;
    assert_eq!((&refused["state"], &refused["failure"]["code"]), (&json!("failed"), &json!("plugin")), "{refused}");

    fs::write(&policy, &first)?;
    echo("echo is back", &|p| p["state"] == "active")?;
    fs::write(&policy, format!("plugins = [\"VPN\"]\n{first}"))?;
    eventually("the broken one is told", Duration::from_secs(30), || {
        let told = |line: &serde_json::Value| line.to_string().contains("policy refused; the old one stays");
        Ok(gateway.audit().iter().any(told).then_some(()))
    })?;
    let ran = cluster.run("web-01", "ping", &json!({"text": "x"}))?;
    assert_eq!(ran["state"], "succeeded", "the old one stays: {ran}");
    Ok(())
}
