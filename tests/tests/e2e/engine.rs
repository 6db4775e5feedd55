//! A Docker Engine of the test's own, with containers that run, stopped ones, and ones
//! that are nobody's business.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Setup;
use viworks_tests::program::{Running, eventually, run};

use crate::Result;

/// dockerd in network and mount namespaces of its own, so that it meets no other.
struct Engine {
    dir: tempfile::TempDir,
    dockerd: Running,
}

impl Engine {
    fn start() -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("viw-docker-").tempdir_in("/var/tmp")?;
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
        engine.import_image()?;
        Ok(engine)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn docker(&self, args: &[&str]) -> std::io::Result<String> {
        let host = format!("unix://{}", self.socket().display());
        let docker = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "/usr/local/bin/docker" };
        run(Path::new(docker), ["-H", &host].iter().chain(args))
    }

    /// No registry here: an image of nothing but busybox.
    fn import_image(&self) -> std::io::Result<()> {
        let root = self.dir.path().join("image/bin");
        fs::create_dir_all(&root)?;
        fs::copy("/bin/busybox", root.join("busybox"))?;
        let tar = self.dir.path().join("image.tar");
        let image = self.dir.path().join("image");
        run(Path::new("/bin/tar"), ["-C".as_ref(), image.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()])?;
        self.docker(&["import", &tar.to_string_lossy(), "viworks-test"]).map(drop)
    }

    fn run(&self, name: &str, label: &str, command: &[&str]) -> std::io::Result<String> {
        let base = ["run", "-d", "--network=none", "--name", name, "--label", label, "viworks-test", "/bin/busybox"];
        self.docker(&[&base, command].concat())
    }

    fn names(&self) -> std::io::Result<Vec<String>> {
        let mut names: Vec<String> =
            self.docker(&["ps", "-a", "--format", "{{.Names}}"])?.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Containers outlive their engine: end those that run, then the engine ends by Running.
        if let Ok(ids) = self.docker(&["ps", "-q"]) {
            for id in ids.lines() {
                let _ = self.docker(&["rm", "-f", id]);
            }
        }
    }
}

#[test]
fn cleanup_removes_what_it_may_and_nothing_else() -> Result {
    removes_what_it_may(false)
}

#[test]
fn a_gateway_without_rights_cleans_up_by_its_broker() -> Result {
    removes_what_it_may(true)
}

fn removes_what_it_may(brokered: bool) -> Result {
    let engine = Engine::start()?;
    engine.run("old-job", "viworks.test=1", &["true"])?;
    engine.run("worker", "viworks.test=1", &["sleep", "600"])?;
    engine.run("foreign", "owner=somebody", &["true"])?;
    let state = |name: &str| engine.docker(&["inspect", "-f", "{{.State.Status}}", name]);
    for name in ["old-job", "foreign"] {
        eventually("exited", Duration::from_secs(20), || Ok((state(name)?.trim() == "exited").then_some(())))?;
    }

    let cluster = Cluster::start()?;
    cluster.publish("containers")?;
    let mut setup = Setup::new(&cluster, "docker-01")?;
    setup.brokered = brokered;
    setup.keys = format!("container_engine = {:?}\n", engine.socket());
    let _gateway = setup.start(&cluster)?;
    cluster.ready("docker-01", 1)?;

    let listed = cluster.run("docker-01", "list_containers", &json!({}))?;
    let names: Vec<&str> =
        listed["result"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["old-job", "worker"], "the foreign one does not exist for the plugin: {listed}");

    let young = cluster.run("docker-01", "cleanup_containers", &json!({"older_than_secs": 3600}))?;
    assert_eq!(young["result"]["removed"], json!([]), "{young}");
    let all = json!({"older_than_secs": 0});
    let (plan, planned) = cluster.plan("docker-01", "cleanup_containers", &all)?;
    assert_eq!(planned["result"]["removed"][0]["name"], "old-job", "{planned}");
    assert_eq!(planned["effects"][0]["irreversible"], true, "{planned}");
    assert_eq!(engine.names()?, ["foreign", "old-job", "worker"], "a plan removes nothing");
    // One more comes, of a name before the other's: what was planned is not what would be.
    engine.run("late-job", "viworks.test=1", &["true"])?;
    eventually("exited", Duration::from_secs(20), || Ok((state("late-job")?.trim() == "exited").then_some(())))?;
    let (_, departed) = cluster.apply("docker-01", "cleanup_containers", &all, &plan)?;
    assert_eq!(departed["failure"]["code"], "plan-departed", "{departed}");
    assert_eq!(engine.names()?, ["foreign", "late-job", "old-job", "worker"]);
    engine.docker(&["rm", "late-job"])?;
    let (command, cleaned) = cluster.apply("docker-01", "cleanup_containers", &all, &plan)?;
    assert_eq!(cleaned["state"], "succeeded", "{cleaned}");
    assert_eq!(cleaned["result"]["removed"][0]["name"], "old-job", "{cleaned}");
    assert_eq!(cleaned["effects"][0]["kind"], "containers.remove");
    // Reported as what it is: the API offers no undo of it, or the gateway says why not.
    if let Ok(undone) = cluster.undo(&command, "apply") {
        assert_eq!(undone["failure"]["code"], "irreversible", "{undone}");
    }
    assert_eq!(engine.names()?, ["foreign", "worker"]);

    let running =
        cluster.run("docker-01", "cleanup_containers", &json!({"older_than_secs": 0, "states": ["running"]}))?;
    assert_ne!(running["state"], "succeeded", "a running container stays, and that is no success: {running}");
    assert_eq!(engine.names()?, ["foreign", "worker"]);
    if state("worker")?.trim() != "running" {
        return Err(Error::other("the worker was stopped"));
    }
    Ok(())
}

#[test]
fn without_an_engine_it_says_so() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("containers")?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.keys = format!("container_engine = {:?}\n", cluster.path("no.sock"));
    let _gateway = setup.start(&cluster)?;
    cluster.ready("web-01", 1)?;
    let ended = cluster.run("web-01", "list_containers", &json!({}))?;
    assert_eq!(ended["failure"]["code"], "unavailable", "{ended}");
    assert!(ended["failure"]["message"].as_str().is_some_and(|m| m.contains("no.sock")), "{ended}");
    Ok(())
}

#[test]
fn an_engine_that_goes_shows_in_the_gateway_s_health() -> Result {
    let mut engine = Engine::start()?;
    let cluster = Cluster::start()?;
    cluster.publish("containers")?;
    let mut setup = Setup::new(&cluster, "docker-01")?;
    setup.keys = format!("container_engine = {:?}\n", engine.socket());
    let gateway = setup.start(&cluster)?;
    cluster.ready("docker-01", 1)?;
    let socket = gateway.dir.join("state/status.sock").to_string_lossy().into_owned();
    let ask = |path: &str| -> std::io::Result<serde_json::Value> {
        let url = format!("http://gateway{path}");
        let text = run(Path::new("/usr/bin/curl"), ["-sS", "--max-time", "5", "--unix-socket", &socket, &url])?;
        serde_json::from_str(&text).map_err(Error::other)
    };
    let shows = |wanted: &str| {
        eventually(&format!("the engine is {wanted}"), Duration::from_secs(20), || {
            let health = ask("/health")?;
            let service = &health["services"]["container_engine"]["status"];
            if service == wanted && health["status"] == wanted {
                Ok(Some(()))
            } else {
                Err(Error::other(health.to_string()))
            }
        })
    };
    shows("healthy")?;
    assert_eq!(ask("/health/ready")?["status"], "ready");
    // It hangs first: the answer comes in time all the same.
    viworks_tests::program::signal(engine.dockerd.pid(), "STOP")?;
    shows("degraded")?;
    viworks_tests::program::signal(engine.dockerd.pid(), "CONT")?;
    shows("healthy")?;
    engine.dockerd.kill()?;
    shows("degraded")?;
    assert_eq!(ask("/health/ready")?["status"], "ready", "other verbs work");
    assert_eq!(ask("/health/live")?["status"], "alive");
    let told = run(&viworks_tests::program::program("viworks-gateway")?, ["status", "--socket", &socket]);
    assert!(told.is_err_and(|e| e.to_string().contains("container_engine")), "`status` names it and exits 1");
    Ok(())
}
