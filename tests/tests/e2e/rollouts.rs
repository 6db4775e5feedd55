//! Releases on their way to the fleet: held and approved, in stages, rolled back by
//! themselves, killed; published from a registry and from a repository.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::write_identities;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{Running, component, eventually, program, run, workspace};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

/// A signed bundle of the broken next release of `nap`, its manifest changed as told.
fn broken(cluster: &Cluster, change: impl FnOnce(String) -> String) -> std::io::Result<PathBuf> {
    let text = fs::read_to_string(workspace().join("tests/guests/nap-broken/plugin.toml"))?;
    let manifest = cluster.path("nap-broken.toml");
    fs::write(&manifest, change(text))?;
    let wasm = component("tests/guests", "viworks_guest_nap_broken")?;
    cluster.sign(&wasm, &manifest, &[], &cluster.path("keys/release.key.pem"))
}

/// Upload it so that it waits for a rollout; gives its digest.
fn stage(cluster: &Cluster, bundle: &Path) -> std::io::Result<String> {
    let answer = cli(cluster, &["plugins", "publish", &bundle.to_string_lossy(), "--stage", "--json"])?;
    let plugin: Value = serde_json::from_str(&answer).map_err(Error::other)?;
    assert_eq!(plugin["state"], "staged", "{plugin}");
    Ok(plugin["digest"].as_str().unwrap_or_default().to_owned())
}

/// The operators' own program, with the admin's token.
fn cli(cluster: &Cluster, args: &[&str]) -> std::io::Result<String> {
    let token = cluster.path("admin.token");
    if !token.exists() {
        viworks_tests::cluster::write_secret(&token, &cluster.token("cli", "admin")?)?;
    }
    let token = token.to_string_lossy().into_owned();
    let mut all = vec!["--url", cluster.api.url(), "--token-file", &token];
    all.extend(args);
    run(&program("viworks")?, all)
}

fn fleet(cluster: &Cluster, count: u32, more: &[&str]) -> std::io::Result<Running> {
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, "sim", 0..count)?;
    let (count, dir) = (count.to_string(), dir.to_string_lossy().into_owned());
    let mut args = vec!["--backend", &cluster.agents_addr, "--dir", &dir, "--agents", &count, "--fetch"];
    args.extend(more);
    Running::start(&program("viworks-fleet")?, args, &cluster.path("fleet.log"))
}

/// Wait until so many agents have the release active.
fn reaches(cluster: &Cluster, digest: &str, count: u64) -> std::io::Result<()> {
    eventually(&format!("{count} agents have {digest}"), SOON, || {
        let plugins = cluster.api.get("/plugins")?.expect_status(200)?;
        let found = plugins["items"].as_array().into_iter().flatten().find(|p| p["digest"] == digest);
        let active = found.and_then(|p| p["agents"]["active"].as_u64());
        if active == Some(count) { Ok(Some(())) } else { Err(Error::other(plugins.to_string())) }
    })
}

/// Run the verb on every agent again and again, until the rollout ends.
fn work_until_it_ends(cluster: &Cluster, id: &str) -> std::io::Result<Value> {
    let nap = json!({"verb": "nap", "args": {"ms": 0}, "selector": {"all": true}, "wait_secs": 30});
    eventually("the rollout ends", SOON, || {
        let ran = cluster.api.post("/commands", &nap)?;
        assert!(matches!(ran.status, 200 | 202), "{ran:?}");
        let of = cluster.api.get(&format!("/plugins/nap/rollouts/{id}"))?.expect_status(200)?;
        if of["finished"].is_null() { Err(Error::other(of.to_string())) } else { Ok(Some(of)) }
    })
}

#[test]
fn a_bad_canary_of_a_fleet_goes_back_by_itself() -> Result {
    let cluster = Cluster::start()?;
    let good = cluster.publish_guest("nap")?["digest"].as_str().unwrap_or_default().to_owned();
    let bad = stage(&cluster, &broken(&cluster, |text| text)?)?;
    let _fleet = fleet(&cluster, 20, &["--fail", &format!("{bad}=100")])?;
    reaches(&cluster, &good, 20)?;
    let body = json!({"digest": bad, "stages": [{"percent": 10, "soak_secs": 600}, {"percent": 100}],
        "gates": {"min_samples": 4}});
    let begun = cluster.api.post("/plugins/nap/rollouts", &body)?.expect_status(201)?;
    reaches(&cluster, &bad, 2)?;
    let ended = work_until_it_ends(&cluster, begun["id"].as_str().unwrap_or_default())?;
    assert_eq!(ended["state"], "rolled_back", "{ended}");
    assert!(ended["reason"].as_str().is_some_and(|r| r.starts_with("errors: nap 100.0 %")), "{ended}");
    assert_eq!(ended["verbs"]["nap"]["former"]["failed"], 0, "the others did not fail: {ended}");
    reaches(&cluster, &good, 20)?;
    let audit = cluster.api.get("/audit?limit=1000")?.expect_status(200)?.to_string();
    assert!(audit.contains("rollout.begin") && audit.contains("rollout.rolled_back"), "{audit}");
    Ok(())
}

#[test]
fn a_good_release_goes_through_its_stages_across_a_restart() -> Result {
    let mut cluster = Cluster::start()?;
    let good = cluster.publish_guest("nap")?["digest"].as_str().unwrap_or_default().to_owned();
    let new = stage(&cluster, &broken(&cluster, |text| text)?)?;
    let simulated = fleet(&cluster, 10, &[])?;
    reaches(&cluster, &good, 10)?;
    let args = ["plugins", "rollout", "nap", "--to", "1.1.0", "--stages", "1,30%,100%:1s", "--soak", "2s", "--json"];
    let begun: Value = serde_json::from_str(&cli(&cluster, &args)?).map_err(Error::other)?;
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/plugins/nap/rollouts/{id}");
    eventually("the second stage", SOON, || {
        let of = cluster.api.get(&path)?.expect_status(200)?;
        Ok((of["stage"] == 1).then_some(()))
    })?;
    drop(simulated);
    cluster.backend.kill()?;
    cluster.restart_backend()?;
    let of = cluster.api.get(&path)?.expect_status(200)?;
    assert!(of["finished"].is_null() && of["stage"] == 1, "it is where it was: {of}");
    let _fleet = fleet(&cluster, 10, &[])?;
    let watched = cli(&cluster, &["plugins", "rollouts", "nap", "--watch"])?;
    assert!(watched.lines().last().is_some_and(|line| line.contains("succeeded")), "{watched}");
    reaches(&cluster, &new, 10)?;
    let verb = cluster.api.get("/verbs/nap")?.expect_status(200)?;
    assert_eq!(verb["version"], "1.1.0");
    Ok(())
}

#[test]
fn a_release_that_asks_for_more_is_held_shown_and_approved() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish_guest("nap")?;
    let bundle = broken(&cluster, |text| text.replace("memory_mib = 16", "memory_mib = 64"))?;
    let held = cluster.upload(&bundle)?.expect_status(202)?;
    assert_eq!(held["state"], "held");
    let body = json!({"digest": held["digest"], "stages": [{"percent": 100}]});
    let refused = cluster.api.post("/plugins/nap/rollouts", &body)?;
    assert_eq!((refused.status, refused.body["reason"].as_str()), (409, Some("E_HELD")), "{refused:?}");
    let diff = cli(&cluster, &["plugins", "diff", "nap", "1.1.0"])?;
    assert!(diff.contains("asks for more than 1.0.0") && diff.contains("memoryMib"), "{diff}");
    let approved = cli(&cluster, &["plugins", "approve", "nap", "1.1.0"])?;
    assert_eq!(approved, "nap 1.1.0 is active\n");
    Ok(())
}

#[test]
fn a_bad_canary_on_real_gateways_goes_back_by_itself() -> Result {
    let cluster = Cluster::start()?;
    let good = cluster.publish_guest("nap")?["digest"].as_str().unwrap_or_default().to_owned();
    let ids = ["web-01", "web-02"];
    let _gateways = ids.map(|id| Gateway::start(&cluster, id)).into_iter().collect::<std::io::Result<Vec<_>>>()?;
    ids.iter().try_for_each(|id| cluster.ready(id, 1))?;
    let bad = stage(&cluster, &broken(&cluster, |text| text)?)?;
    let body = json!({"digest": bad, "stages": [{"agents": 1, "soak_secs": 600}, {"percent": 100}],
        "gates": {"min_samples": 3}});
    let begun = cluster.api.post("/plugins/nap/rollouts", &body)?.expect_status(201)?;
    reaches(&cluster, &bad, 1)?;
    let ended = work_until_it_ends(&cluster, begun["id"].as_str().unwrap_or_default())?;
    assert_eq!(ended["state"], "rolled_back", "{ended}");
    reaches(&cluster, &good, 2)?;
    for id in ids {
        let ran = cluster.run(id, "nap", &json!({"ms": 0}))?;
        assert_eq!(ran["state"], "succeeded", "{ran}");
    }
    Ok(())
}

#[test]
fn a_kill_ends_what_runs_on_a_real_gateway() -> Result {
    let cluster = Cluster::start()?;
    let nap = cluster.publish_guest("nap")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let body = json!({"verb": "nap", "args": {"ms": 2_000}, "agent_targets": ["web-01"]});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let digest = nap["digest"].as_str().unwrap_or_default();
    let killed = cli(&cluster, &["plugins", "kill", digest, "--reason", "it naps"])?;
    assert_eq!(killed, "nap 1.0.0 is killed; nothing is active in its place; 1 commands and 0 invocations cancelled\n");
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["cancelled"], 1, "{done}");
    eventually("the gateway retired it", SOON, || {
        let audit = serde_json::to_string(&gateway.audit()).map_err(Error::other)?;
        if audit.contains("plugin retired") { Ok(Some(())) } else { Err(Error::other(audit)) }
    })?;
    assert_eq!(cluster.api.get("/verbs/nap")?.problem(404)?, "unknown-verb");
    Ok(())
}

/// Debian's registry on a port of its own.
fn registry(cluster: &Cluster) -> std::io::Result<(Running, String)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let config = cluster.path("registry.yml");
    let root = cluster.path("registry");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {root:?}}}}}\n\
             http: {{addr: \"{address}\"}}\n"
        ),
    )?;
    let args = ["serve".as_ref(), config.as_os_str()];
    let registry = Running::start(Path::new("/usr/bin/docker-registry"), args, &cluster.path("registry.log"))?;
    eventually("the registry listens", SOON, || Ok(std::net::TcpStream::connect(&address).ok().map(drop)))?;
    Ok((registry, address))
}

#[test]
fn a_bundle_is_published_by_way_of_a_registry() -> Result {
    // The registry's address has to be in the configuration, so the backend starts again.
    let mut cluster = Cluster::start()?;
    let (_registry, address) = registry(&cluster)?;
    let dir = workspace().join("tests/guests/nap");
    let wasm = component("tests/guests", "viworks_guest_nap")?;
    let bundle = cluster.sign(&wasm, &dir.join("plugin.toml"), &[], &cluster.path("keys/release.key.pem"))?;
    let reference = format!("oci://{address}/plugins/nap:1.0.0");
    let unknown = cluster.api.post("/plugins", &json!({ "oci": reference }))?;
    assert_eq!(unknown.body["reason"], "E_OCI_REGISTRY", "{unknown:?}");
    let config = cluster.path("backend.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("{text}\n[registries.\"{address}\"]\nplain_http = true\n"))?;
    cluster.backend.kill()?;
    cluster.restart_backend()?;

    let absent = cluster.api.post("/plugins", &json!({ "oci": reference }))?;
    assert_eq!(absent.body["reason"], "E_OCI_PULL", "{absent:?}");
    let file = bundle.to_string_lossy().into_owned();
    let push = ["plugins", "push", file.as_str(), reference.as_str(), "--plain-http"];
    cli(&cluster, &push)?;
    cli(&cluster, &push)?;
    let published = cli(&cluster, &["plugins", "publish", &reference])?;
    assert_eq!(published, "nap 1.0.0 is published\n");
    let listed = cluster.api.get("/plugins")?.expect_status(200)?;
    assert_eq!(listed["items"][0]["digest"], hex::encode(<sha2::Sha256 as sha2::Digest>::digest(fs::read(&bundle)?)));

    // Transport, not trust: what somebody puts there unsigned is refused as any upload is.
    let other = broken(&cluster, |text| text)?;
    let mut bytes = fs::read(&other)?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    fs::write(&other, bytes)?;
    let forged = format!("oci://{address}/plugins/nap:1.1.0");
    cli(&cluster, &["plugins", "push", &other.to_string_lossy(), &forged, "--plain-http"])?;
    let refused = cluster.api.post("/plugins", &json!({ "oci": forged }))?;
    assert_eq!(refused.problem(422)?, "plugin-refused");
    Ok(())
}

#[test]
fn a_fleet_fetches_a_release_at_once() -> Result {
    let cluster = Cluster::start_with(&Options::default())?;
    let _fleet = fleet(&cluster, 100, &[])?;
    eventually("100 agents online", SOON, || {
        let health = cluster.api.get("/agents?status=online&limit=1000")?.expect_status(200)?;
        Ok((health["items"].as_array().map_or(0, Vec::len) == 100).then_some(()))
    })?;
    let digest = cluster.publish("accounts")?["digest"].as_str().unwrap_or_default().to_owned();
    reaches(&cluster, &digest, 100)?;
    // The simulator counts once a second.
    let counts = eventually("the fleet's count", SOON, || {
        let log = fs::read_to_string(cluster.path("fleet.log"))?;
        let last: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).unwrap_or_default();
        if last["fetched"] == 100 { Ok(Some(last)) } else { Err(Error::other(log)) }
    })?;
    assert_eq!(counts["mismatched"], 0, "every byte was the digest's: {counts}");
    Ok(())
}

/// `viworks-sign` with these words.
fn sign_tool(args: &[&str]) -> std::io::Result<String> {
    run(&program("viworks-sign")?, args)
}

#[test]
fn a_release_repository_reaches_a_real_gateway() -> Result {
    let mut cluster = Cluster::start()?;
    let keys = cluster.path("keys").to_string_lossy().into_owned();
    let repo = cluster.path("releases").to_string_lossy().into_owned();
    let roles = ["root", "targets", "releases", "revocation", "snapshot", "timestamp"];
    let named = |role: &str| if role == "releases" { "release".to_owned() } else { role.to_owned() };
    let (mut init, mut signing) = (vec!["repo".to_owned(), "init".to_owned(), repo.clone()], Vec::new());
    for role in roles {
        let key = format!("{keys}/{}", named(role));
        if role != "releases" {
            sign_tool(&["keygen", "--out", &key])?;
        }
        init.extend(["--role".to_owned(), format!("{role}={key}.pub.pem")]);
        init.extend(["--threshold".to_owned(), format!("{role}=1")]);
        signing.extend(["--key".to_owned(), format!("file:{key}.key.pem")]);
    }
    init.extend(signing.clone());
    sign_tool(&init.iter().map(String::as_str).collect::<Vec<_>>())?;
    let add = |bundle: &Path| {
        let mut args = vec!["repo".to_owned(), "add".to_owned(), repo.clone(), bundle.to_string_lossy().into_owned()];
        args.extend(signing.clone());
        sign_tool(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let root = format!("{repo}/metadata/1.root.json");
    let config = cluster.path("backend.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("{text}\ntrusted_root = {root:?}\nrepository = {repo:?}\n"))?;
    cluster.backend.kill()?;
    cluster.restart_backend()?;

    // Signed, and yet no target of the repository: refused by the backend already.
    let dir = workspace().join("tests/guests/nap");
    let wasm = component("tests/guests", "viworks_guest_nap")?;
    let bundle = cluster.sign(&wasm, &dir.join("plugin.toml"), &[], &cluster.path("keys/release.key.pem"))?;
    eventually("the repository is mirrored", SOON, || {
        let state = cluster.api.get("/repository")?.expect_status(200)?;
        if state["versions"].is_null() { Err(Error::other(state.to_string())) } else { Ok(Some(())) }
    })?;
    assert_eq!(cluster.upload(&bundle)?.body["reason"], "E_TUF_TARGET");

    let mut setup = viworks_tests::gateway::Setup::new(&cluster, "web-01")?;
    setup.keys = format!("trusted_root = {root:?}\n");
    let _gateway = setup.start(&cluster)?;
    add(&bundle)?;
    cluster.ready("web-01", 1)?;
    let ran = cluster.run("web-01", "nap", &json!({"ms": 0}))?;
    assert_eq!(ran["state"], "succeeded", "{ran}");
    let shown = cli(&cluster, &["plugins", "repository"])?;
    assert!(shown.contains("timestamp") && shown.contains("expires"), "{shown}");

    // The same by upload, as a folder: nothing is new, and that is no fault.
    let again = cli(&cluster, &["plugins", "publish", "--repository", &repo, "--json"])?;
    let again: Value = serde_json::from_str(&again).map_err(Error::other)?;
    assert_eq!((&again["published"], &again["refused"]), (&json!([]), &json!([])), "{again}");
    Ok(())
}
