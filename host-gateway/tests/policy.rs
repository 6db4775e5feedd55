//! `viworks-gateway policy check` and `explain`, as a host's owner runs them.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{Bundle, Gateway, guest, manifest};
use serde_json::Value;
use viworks_protocol::frame::PluginState;
use viworks_signing::keys::SecretKey;

fn policy(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viworks-gateway"));
    command.arg("policy").args(args).current_dir(dir).env_clear();
    command.envs(env.iter().copied()).output().unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn check_names_every_fault_with_the_valid_choices() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.toml"), "plugins = [\"vpn-*\"]\n[capabilities.vpn]\n").unwrap();
    let good = policy(dir.path(), &["check", "--policy", "good.toml"], &[]);
    assert!(good.status.success(), "{good:?}");
    let bad = "plugins = [\"VPN\"]\n[capabilities.vpm]\n[limits]\nmemory_mib = 0\n[approvals]\nverbs = { x = 1 }\n";
    fs::write(dir.path().join("bad.toml"), bad).unwrap();
    let answer = policy(dir.path(), &["check", "--policy", "bad.toml", "--json"], &[]);
    assert_eq!(answer.status.code(), Some(1));
    let answer = json(&answer);
    let said = answer["faults"].to_string();
    for part in ["plugins", "vpm", "memory_mib", "approvals"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("accounts"), "the choices are named: {said}");
}

#[tokio::test]
async fn explain_shows_what_is_left_of_a_bundle_and_of_an_installed_plugin() {
    let gateway = Gateway::new("[state]").with(&["hostile"]).await;
    let dir = gateway.dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    fs::write(at("release.pem"), gateway.release_key.public().to_pem().unwrap()).unwrap();
    fs::write(at("policy.toml"), "[capabilities.state]\nmax_kib = 8\n[limits]\nmemory_mib = 4\n").unwrap();
    let (keys, file, state) = (at("release.pem"), at("policy.toml"), dir.display().to_string());
    let env = [
        ("VIW_AGENT_RELEASE_KEYS", keys.as_str()),
        ("VIW_AGENT_POLICY", file.as_str()),
        ("VIW_AGENT_STATE_DIR", state.as_str()),
    ];
    let installed = policy(dir, &["explain", "hostile", "--json"], &env);
    let installed = json(&installed);
    assert_eq!(installed["plugin"], "hostile");
    let rows = installed["limits"].as_array().unwrap();
    let memory = rows.iter().find(|row| row["field"] == "memory_mib").unwrap();
    assert_eq!((&memory["policy"], &memory["result"]), (&4.into(), &4.into()), "{installed}");
    let shown = policy(dir, &["explain", "hostile"], &env);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("state"), "{shown:?}");
    let unknown = policy(dir, &["explain", "nothing"], &env);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are hostile"), "{unknown:?}");

    let write = |bundle: &Bundle| {
        fs::write(at("echo.wasm"), &bundle.component).unwrap();
        fs::write(at("echo.wasm.intoto.jsonl"), &bundle.statements).unwrap();
    };
    write(&gateway.bundle("echo"));
    let bundle = policy(dir, &["explain", &at("echo.wasm"), "--json"], &env);
    assert_eq!(json(&bundle)["plugin"], "echo");
    write(&Bundle::sign(guest("echo"), &manifest("echo"), &SecretKey::generate()));
    let foreign = policy(dir, &["explain", &at("echo.wasm")], &env);
    assert_eq!(foreign.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&foreign.stderr).contains("E_SIGNATURE"), "{foreign:?}");
    assert_eq!(gateway.install(gateway.bundle("echo")).await.state, PluginState::Active, "nothing was changed");
}
