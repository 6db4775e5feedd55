//! What is installed and how: Debian packages through their whole life, the units' confinement,
//! images FROM scratch, and what the programs are made of.

use std::collections::BTreeSet;
use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use viworks_tests::cluster::Cluster;
use viworks_tests::packages::debs;
use viworks_tests::program::{Running, eventually, program, run, workspace};
use viworks_tests::sandbox::{self, Given};

use crate::Result;

#[test]
fn packages_are_installed_upgraded_rolled_back_and_purged() -> Result {
    let given = Given { debs: Some(debs()?) };
    let script = fs::read_to_string(workspace().join("tests/sandbox/packages.sh"))?;
    let said = sandbox::run(&script, &given, Duration::from_secs(280))?;
    assert!(said.lines().any(|line| line == "== done"), "{said}");
    Ok(())
}

#[test]
fn a_gateway_renews_its_own_program_and_goes_back_by_itself() -> Result {
    let script = fs::read_to_string(workspace().join("tests/sandbox/self-update.sh"))?;
    let said = sandbox::run(&script, &Given::default(), Duration::from_secs(280))?;
    assert!(said.lines().any(|line| line == "== done"), "{said}");
    Ok(())
}

#[test]
fn lintian_finds_nothing_wrong() -> Result {
    let mut found = Vec::new();
    for entry in fs::read_dir(debs()?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    assert_eq!(found.len(), 3);
    let args = ["--allow-root", "--fail-on", "error,warning"].map(PathBuf::from);
    run(Path::new("/usr/bin/lintian"), args.iter().chain(&found)).map(drop)
}

#[test]
fn sboms_list_what_is_linked_in() -> Result {
    debs()?;
    for (name, linked, foreign) in [
        ("viworks-backend", "sqlx", "wasmtime"),
        ("viworks-gateway", "wasmtime", "sqlx"),
        ("viworks-sign", "cryptoki", "tokio"),
    ] {
        let text = fs::read_to_string(workspace().join(format!("target/sbom/{name}.cdx.json")))?;
        let sbom: Value = serde_json::from_str(&text)?;
        assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        assert_eq!(sbom["metadata"]["component"]["name"], name);
        let components: Vec<&Value> = sbom["components"].as_array().into_iter().flatten().collect();
        let named = |wanted: &str| components.iter().any(|component| component["name"] == wanted);
        assert!(named(linked) && !named(foreign), "{name}");
        assert!(!named("tempfile") || name != "viworks-gateway", "what only tests need is not in the program");
        let refs: BTreeSet<&str> = components.iter().filter_map(|component| component["bom-ref"].as_str()).collect();
        assert_eq!(refs.len(), components.len(), "each once");
        let subject = sbom["metadata"]["component"]["bom-ref"].as_str();
        for node in sbom["dependencies"].as_array().into_iter().flatten() {
            let known = |r: &Value| r.as_str().is_some_and(|r| refs.contains(r) || Some(r) == subject);
            assert!(known(&node["ref"]) && node["dependsOn"].as_array().into_iter().flatten().all(known), "{node}");
        }
        for component in components {
            let outside = component["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64);
            let own = component["name"].as_str().is_some_and(|own| own.starts_with("viworks-"));
            assert!(outside || own, "{component}");
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        }
    }
    Ok(())
}

/// dockerd in namespaces of its own.
struct Engine {
    dir: tempfile::TempDir,
    dockerd: Running,
}

impl Engine {
    fn start() -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("viw-image-").tempdir_in("/var/tmp")?;
        let d = dir.path().display();
        let script = format!(
            "ip link set lo up; exec dockerd -H unix://{d}/docker.sock --data-root {d}/data --exec-root {d}/exec \
             --pidfile {d}/pid --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "bash", "-c", &script]);
        let dockerd = Running::start_with(&mut command, &dir.path().join("dockerd.log"))?;
        let engine = Self { dir, dockerd };
        eventually("dockerd answers", Duration::from_secs(30), || engine.docker(&["version"]).map(Some))?;
        Ok(engine)
    }

    fn docker(&self, args: &[&str]) -> std::io::Result<String> {
        let host = format!("unix://{}", self.dir.path().join("docker.sock").display());
        let docker = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "/usr/local/bin/docker" };
        let mut command = Command::new(docker);
        // No BuildKit where nothing can be pulled.
        command.args(["-H", &host]).args(args).env("DOCKER_BUILDKIT", "0");
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(Error::other(format!("docker {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Containers outlive their engine.
        for id in self.docker(&["ps", "-aq"]).unwrap_or_default().lines() {
            let _ = self.docker(&["rm", "-f", id]);
        }
    }
}

#[test]
fn images_from_scratch_run() -> Result {
    let engine = Engine::start()?;
    let context = engine.dir.path().join("context");
    let docker = workspace().join("deploy/docker");
    for name in ["backend", "gateway"] {
        let from = program(&format!("viworks-{name}"))?;
        let root = context.join(format!("rootfs/viworks-{name}"));
        fs::create_dir_all(&root)?;
        run(&docker.join("collect.sh"), [&from, &root])?;
        let file = docker.join(format!("{name}.Dockerfile"));
        let tag = format!("viworks-{name}");
        engine.docker(&["build", "-q", "-t", &tag, "-f", &file.to_string_lossy(), &context.to_string_lossy()])?;
        let version = engine.docker(&["run", "--rm", "--network=none", &tag, "--version"])?;
        assert!(version.starts_with(&format!("viworks-{name} ")), "{version}");
    }

    // The backend for real, unprivileged, on a read-only root.
    let cluster = Cluster::start()?;
    let etc = engine.dir.path().join("etc");
    fs::create_dir_all(&etc)?;
    for (from, to) in [
        ("backend.pem", "agents.crt.pem"),
        ("backend.key.pem", "agents.key.pem"),
        ("ca.pem", "agents-ca.crt.pem"),
        ("keys/release.pub.pem", "release.pub.pem"),
    ] {
        fs::copy(cluster.path(from), etc.join(to))?;
    }
    fs::write(etc.join("backend.toml"), "")?;
    run(Path::new("/bin/chown"), ["-R".as_ref(), "64000:64000".as_ref(), etc.as_os_str()])?;
    let mount = format!("{}:/etc/viworks:ro", etc.display());
    let options = ["run", "-d", "--name", "backend", "--network=host", "--read-only", "--cap-drop=ALL"];
    engine.docker(&[&options[..], &["--security-opt=no-new-privileges", "-v", &mount, "viworks-backend"]].concat())?;
    let pid = engine.dockerd.pid().to_string();
    let inside = ["-t", &pid, "-n", "curl", "-fsS", "http://127.0.0.1:8080/health"];
    let health = eventually("the container's /health", Duration::from_secs(30), || {
        run(Path::new("/usr/bin/nsenter"), inside).map(Some)
    })?;
    let health: Value = serde_json::from_str(&health)?;
    assert_eq!(health["status"], "healthy", "{health}");
    engine.docker(&["stop", "-t", "20", "backend"])?;
    assert_eq!(engine.docker(&["inspect", "-f", "{{.State.ExitCode}}", "backend"])?.trim(), "0");
    Ok(())
}
