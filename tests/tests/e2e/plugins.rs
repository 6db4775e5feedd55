//! Plugins on their way in: what is tampered with, unsigned, foreign or not newer is
//! refused before it is anywhere near a host.

use std::fs;
use std::io::Error;
use std::path::Path;

use viworks_tests::cluster::Cluster;
use viworks_tests::program::{component, program, run, workspace};

use crate::Result;

/// A signed bundle of the accounts plugin in the cluster's folder, not published.
fn bundle(cluster: &Cluster) -> std::io::Result<std::path::PathBuf> {
    let dir = workspace().join("plugins/accounts");
    let wasm = component("plugins", "viworks_plugin_accounts")?;
    let wit = [workspace().join("wit"), dir.join("wit")];
    cluster.sign(&wasm, &dir.join("plugin.toml"), &wit, &cluster.path("keys/release.key.pem"))
}

fn statements(bundle: &Path) -> std::path::PathBuf {
    bundle.with_extension("wasm.intoto.jsonl")
}

#[test]
fn any_changed_byte_is_refused() -> Result {
    let cluster = Cluster::start()?;
    let bundle = bundle(&cluster)?;
    let (wasm, jsonl) = (fs::read(&bundle)?, fs::read(statements(&bundle))?);
    let stride = wasm.len() / 20;
    for at in (0..wasm.len()).step_by(stride.max(1)) {
        let mut changed = wasm.clone();
        changed[at] ^= 1;
        fs::write(&bundle, &changed)?;
        assert_eq!(cluster.upload(&bundle)?.problem(422)?, "plugin-refused", "component byte {at}");
    }
    fs::write(&bundle, &wasm)?;
    for at in (0..jsonl.len() - 1).step_by(jsonl.len() / 20) {
        let mut changed = jsonl.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        fs::write(statements(&bundle), &changed)?;
        let answer = cluster.upload(&bundle)?;
        // A hint may change: the keyid decides nothing. All else must be refused.
        if answer.status == 201 {
            let original = String::from_utf8_lossy(&jsonl);
            let keyid = original.find("keyid").map_or(0..0, |start| start..start + 80);
            assert!(keyid.contains(&at), "statement byte {at} changed and accepted");
        }
    }
    fs::write(statements(&bundle), &jsonl)?;
    assert!(matches!(cluster.upload(&bundle)?.status, 201 | 409));
    Ok(())
}

#[test]
fn an_unknown_key_and_an_unsigned_component_are_refused() -> Result {
    let cluster = Cluster::start()?;
    let other = cluster.path("keys/other");
    run(&program("viworks-sign")?, ["keygen".as_ref(), "--out".as_ref(), other.as_os_str()])?;
    let dir = workspace().join("plugins/accounts");
    let wasm = component("plugins", "viworks_plugin_accounts")?;
    let signed = cluster.sign(&wasm, &dir.join("plugin.toml"), &[], &cluster.path("keys/other.key.pem"))?;
    let answer = cluster.upload(&signed)?;
    assert_eq!(answer.body["reason"], "E_SIGNATURE", "{answer:?}");
    fs::write(statements(&signed), "")?;
    assert_eq!(cluster.upload(&signed)?.problem(422)?, "plugin-refused");
    assert_eq!(cluster.api.get("/plugins")?.expect_status(200)?["items"], serde_json::json!([]));
    Ok(())
}

#[test]
fn a_gateway_trusts_only_its_own_keys() -> Result {
    // The backend accepts the release; the host's owner trusts another key.
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let other = cluster.path("keys/other");
    run(&program("viworks-sign")?, ["keygen".as_ref(), "--out".as_ref(), other.as_os_str()])?;
    let setup = viworks_tests::gateway::Setup::new(&cluster, "web-01")?;
    let config = setup.write(&cluster)?.join("gateway.toml");
    let text = fs::read_to_string(&config)?.replace("release.pub.pem", "other.pub.pem");
    fs::write(&config, text)?;
    let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let log = cluster.path("gateways/web-01/gateway.log");
    let _gateway = viworks_tests::program::Running::start(&program("viworks-gateway")?, args, &log)?;
    let refused = viworks_tests::program::eventually("refused", std::time::Duration::from_secs(30), || {
        let body = cluster.api.get("/agents/web-01")?.expect_status(200)?;
        let all = body["plugins"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().find(|p| p["state"] == "refused"))
    })?;
    assert!(refused["detail"].as_str().is_some_and(|d| d.contains("E_SIGNATURE")), "{refused}");
    Ok(())
}

#[test]
fn the_recipe_of_contributing_builds_a_verb() -> Result {
    // Exactly the shell block of CONTRIBUTING.md, with this workspace's programs on PATH.
    let text = fs::read_to_string(workspace().join("CONTRIBUTING.md"))?;
    let block = text
        .split_once("<!-- recipe -->")
        .and_then(|(_, rest)| rest.split_once("```sh\n"))
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .map(|(block, _)| block)
        .ok_or_else(|| Error::other("CONTRIBUTING.md has no recipe"))?;
    let cluster = Cluster::start()?;
    let dir = cluster.path("recipe");
    fs::create_dir(&dir)?;
    let bin = program("viworks")?;
    let bin = bin.parent().unwrap_or(Path::new("/"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(&dir)
        .env("PATH", path)
        .env("VIWORKS", workspace().canonicalize()?)
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bundle = fs::read_dir(dir.join("out"))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.extension().is_some_and(|e| e == "wasm"))
        .ok_or_else(|| Error::other("no bundle in out/"))?;
    // Signed by a key of its own: trusted as soon as the backend's owner says so.
    let trusted = cluster.path("keys/release.pub.pem");
    let both = format!("{}{}", fs::read_to_string(&trusted)?, fs::read_to_string(dir.join("release.pub.pem"))?);
    fs::write(&trusted, both)?;
    let mut cluster = cluster;
    cluster.backend.kill()?;
    cluster.restart_backend()?;
    cluster.upload(&bundle)?.expect_status(201)?;
    let _gateway = viworks_tests::gateway::Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let ran = cluster.run("web-01", "greet", &serde_json::json!({"name": "Ada"}))?;
    assert_eq!(ran["state"], "succeeded", "{ran}");
    assert!(ran["result"].as_str().is_some_and(|text| text.starts_with("Hello Ada, this is ")), "{ran}");
    Ok(())
}
