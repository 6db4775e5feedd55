//! A real engine of the test's own: what it runs is stopped, refused and removed.

use viworks_signing::grant::{ContainersScope, Patterns, Scopes};
use viworks_signing::release::EffectClass;

use super::super::wit::viworks::gateway::containers::{self as wit, Host as _};
use super::super::wit::viworks::gateway::types;
use super::container::now;
use super::*;
use crate::effects::bench::{Applied, Bench};
use crate::effects::{Effect, Inverse};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

/// A `dockerd` with its own root, socket and network namespace, and an image of busybox.
struct Dockerd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Dockerd {
    fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test starts a container engine: run it as root");
        let dir = tempfile::Builder::new().prefix("viwd").tempdir().unwrap();
        let d = dir.path().display();
        let line = format!(
            "ip link set lo up; exec dockerd -H unix://{d}/docker.sock --data-root {d}/data --exec-root {d}/exec \
             --pidfile {d}/pid --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
        );
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--net", "--mount", "bash", "-c", &line])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { dir, child };
        let until = Instant::now() + Duration::from_secs(60);
        while !engine.try_docker(&["version"]).status.success() {
            assert!(Instant::now() < until, "{}", std::fs::read_to_string(engine.path().join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        engine.import();
        engine
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// No image can be fetched: one of a static busybox alone.
    fn import(&self) {
        let root = self.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let tar = self.path().join("root.tar");
        let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").status().unwrap();
        assert!(made.success());
        self.docker(&["import", tar.to_str().unwrap(), "viwtest:1"]);
    }

    fn try_docker(&self, args: &[&str]) -> Output {
        let host = format!("unix://{}/docker.sock", self.path().display());
        Command::new("docker").arg("-H").arg(host).args(args).output().unwrap()
    }

    fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn run(&self, name: &str, command: &[&str]) -> String {
        let mut args =
            vec!["run", "-d", "--network=none", "--label", "viwtest=1", "--name", name, "viwtest:1", "/bin/busybox"];
        args.extend(command);
        self.docker(&args)
    }

    fn provider(&self) -> Tried {
        Tried(Provider::new(&Config { socket: Some(self.path().join("docker.sock")), timeout_secs: 20 }))
    }
}

/// A provider whose changes are foreseen before they are applied, as the recorder does.
struct Tried(Provider);

impl std::ops::Deref for Tried {
    type Target = Provider;

    fn deref(&self) -> &Provider {
        &self.0
    }
}

impl Tried {
    async fn apply(&self, change: &Change) -> Result<Applied, Failure> {
        let effect = self.foresee(change.clone(), &[]).await?.effect;
        let Effect::Containers(change) = &effect else { panic!("{effect:?}") };
        let answer = self.0.apply(change).await?;
        Ok(Applied { answer, inverse: effect.inverse(), effect })
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let ids = self.try_docker(&["ps", "-aq"]);
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        for id in ids.split_whitespace() {
            self.try_docker(&["rm", "-f", id]);
        }
        // Not SIGKILL: it takes its containerd along.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_engine_is_listed_stopped_started_and_pruned() {
    let engine = Dockerd::start();
    let provider = engine.provider();
    let version = provider.engine.version().await.unwrap();
    assert_eq!(version.name, "Docker Engine");
    assert!(version.api_version.starts_with("1."), "{version:?}");

    let web = engine.run("web", &["sleep", "600"]);
    let job = engine.run("job", &["true"]);
    engine.docker(&["wait", "job"]);
    let fresh = engine.docker(&["create", "--network=none", "--name", "fresh", "viwtest:1", "/bin/busybox", "true"]);

    let listed = provider.engine.list(|_| true).await.unwrap();
    let shown: Vec<_> = listed.iter().map(|c| (c.name.as_str(), c.state.as_str())).collect();
    assert_eq!(shown, [("fresh", "created"), ("job", "exited"), ("web", "running")]);
    assert_eq!(listed.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [&fresh, &job, &web]);
    let (fresh_one, job_one, web_one) = (&listed[0], &listed[1], &listed[2]);
    assert!(job_one.stopped.is_some() && fresh_one.stopped.is_none() && web_one.stopped.is_none());
    assert!(web_one.has_label("viwtest=1") && !fresh_one.has_label("viwtest"));
    assert_eq!(job_one.image, "viwtest:1");
    assert!(job_one.age(now()) < 120);

    // A running one is not removed by the engine, unless it is told to.
    let refused = provider.engine.remove(&web, false).await;
    assert!(matches!(refused, Err(Failure::Conflict(_))), "{refused:?}");

    // Stopping has starting as its inverse, and the other way round.
    let stop = Change::Stop { id: web.clone(), name: "web".into(), grace_secs: 0 };
    let stopped = provider.apply(&stop).await.unwrap();
    assert_eq!(engine.docker(&["inspect", "-f", "{{.State.Status}}", "web"]), "exited");
    let Inverse::Effect(inverse) = stopped.inverse else { panic!("stopping can be undone") };
    let Effect::Containers(start) = *inverse else { panic!("by this capability") };
    assert_eq!(start, Change::Start { id: web.clone(), name: "web".into() });
    assert!(matches!(provider.apply(&stop).await, Err(Failure::Conflict(_))), "it is stopped already");

    // What was decided on an older look is refused: it stopped at another time.
    let stale = Change::remove(&provider.engine.inspect(&web).await.unwrap());
    provider.apply(&start).await.unwrap();
    assert_eq!(engine.docker(&["inspect", "-f", "{{.State.Status}}", "web"]), "running");
    std::thread::sleep(Duration::from_millis(1_100));
    provider.apply(&stop).await.unwrap();
    assert!(matches!(provider.apply(&stale).await, Err(Failure::Conflict(why)) if why.contains("meanwhile")));
    engine.docker(&["rename", "web", "other"]);
    let renamed = provider
        .apply(&Change::Remove {
            id: web.clone(),
            name: "web".into(),
            image: String::new(),
            state: "exited".into(),
            stopped: None,
        })
        .await;
    assert!(matches!(renamed, Err(Failure::Conflict(_))), "{renamed:?}");

    for container in [fresh_one, job_one] {
        let removed = provider.apply(&Change::remove(container)).await.unwrap();
        assert_eq!(removed.inverse, Inverse::Irreversible);
        assert!(matches!(provider.engine.inspect(&container.id).await, Err(Failure::NotFound(_))));
    }
    assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]), "other");
}

fn scope(change: impl FnOnce(&mut ContainersScope)) -> Scopes {
    let mut scope = ContainersScope { labels: vec!["viwtest=1".into()], ..ContainersScope::default() };
    change(&mut scope);
    Scopes { containers: Some(scope), ..Scopes::default() }
}

fn everything() -> wit::Filter {
    wit::Filter { states: Vec::new(), labels: Vec::new(), name: None, older_than_secs: None }
}

fn rule<T>(answer: Result<T, types::Failure>) -> String {
    match answer {
        Err(types::Failure::Denied(denial)) => denial.rule,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was allowed"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_grant_holds_on_a_real_engine() {
    let engine = Dockerd::start();
    let bench = Bench::new(|_, config| {
        config.containers = Config { socket: Some(engine.path().join("docker.sock")), timeout_secs: 20 };
    });
    let allowed = |s: &mut ContainersScope| (s.stop, s.allow_irreversible) = (true, true);
    let release = Scopes {
        containers: Some(ContainersScope { stop: true, allow_irreversible: true, ..ContainersScope::default() }),
        ..Scopes::default()
    };
    let call = async |policy: Scopes| bench.call(&release, &policy, EffectClass::Irreversible).await;
    let create = |name: &str, label: &str| {
        engine.docker(&[
            "create",
            "--network=none",
            "--label",
            label,
            "--name",
            name,
            "viwtest:1",
            "/bin/busybox",
            "true",
        ])
    };

    let web = engine.run("web", &["sleep", "600"]);
    engine.run("job", &["true"]);
    engine.docker(&["wait", "job"]);
    create("fresh", "viwtest=1");
    create("foreign", "viwtest=2");

    let mut granted = call(scope(allowed)).await;
    let names = |found: Vec<wit::Container>| found.into_iter().map(|c| c.name).collect::<Vec<_>>();
    assert_eq!(names(granted.list(everything()).await.unwrap().unwrap()), ["fresh", "job", "web"]);
    let one = wit::Filter { name: Some("job".into()), states: vec!["exited".into()], ..everything() };
    assert_eq!(names(granted.list(one).await.unwrap().unwrap()), ["job"]);
    assert_eq!(granted.get_engine().await.unwrap().unwrap().name, "Docker Engine");

    // Each rule by its name, and nothing happened.
    assert_eq!(rule(granted.remove("foreign".into()).await.unwrap()), "policy: containers.labels");
    assert_eq!(rule(granted.remove(web.clone()).await.unwrap()), "release: containers.remove_states");
    let mut safe = call(scope(|_| {})).await;
    assert_eq!(rule(safe.remove("job".into()).await.unwrap()), "policy: containers.allow_irreversible");
    assert_eq!(rule(safe.prune(everything()).await.unwrap()), "policy: containers.allow_irreversible");
    assert_eq!(rule(safe.stop(web.clone(), 0).await.unwrap()), "policy: containers.stop");
    let mut patient = call(scope(|s| (s.allow_irreversible, s.min_age_secs) = (true, 3_600))).await;
    assert_eq!(rule(patient.remove("job".into()).await.unwrap()), "policy: containers.min_age_secs");
    assert!(patient.prune(everything()).await.unwrap().unwrap().is_empty());
    let mut picky = call(scope(|s| (s.allow_irreversible, s.names) = (true, Patterns::parse(["db-*"]).unwrap()))).await;
    assert_eq!(rule(picky.remove("job".into()).await.unwrap()), "policy: containers.names");
    assert!(picky.list(everything()).await.unwrap().unwrap().is_empty());
    assert!(matches!(granted.remove("nobody".into()).await.unwrap(), Err(types::Failure::NotFound(_))));
    assert!(matches!(granted.stop("web".into(), 121).await.unwrap(), Err(types::Failure::InvalidArgument(_))));
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 4);

    // One that runs goes where every layer lists `running` and allows what can't be undone.
    let running = |s: &mut ContainersScope| s.remove_states.push("running".into());
    let bold = scope(|s| {
        allowed(s);
        running(s);
    });
    let doomed = engine.run("doomed", &["sleep", "600"]);
    let mut meek = bench.call(&bold, &scope(running), EffectClass::Irreversible).await;
    assert_eq!(rule(meek.remove(doomed.clone()).await.unwrap()), "policy: containers.allow_irreversible");
    let mut changing = bench.call(&bold, &bold, EffectClass::Change).await;
    assert_eq!(rule(changing.remove(doomed.clone()).await.unwrap()), "release: verb effect is change");
    let mut bold = bench.call(&bold, &bold, EffectClass::Irreversible).await;
    assert_eq!(bold.remove(doomed.clone()).await.unwrap().unwrap().state, "running");
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 4);
    assert!(bold.recorder.reports()[0].irreversible);

    let old = wit::Filter { older_than_secs: Some(3_600), ..everything() };
    assert!(granted.prune(old).await.unwrap().unwrap().is_empty());
    assert_eq!(names(granted.prune(everything()).await.unwrap().unwrap()), ["fresh", "job"]);
    assert_eq!(granted.recorder.reports().len(), 2, "each removal is an effect of its own");
    assert!(granted.prune(everything()).await.unwrap().unwrap().is_empty());
    let stopped = granted.stop("web".into(), 0).await.unwrap().unwrap();
    assert_eq!((stopped.id.as_str(), stopped.state.as_str()), (web.as_str(), "exited"));
    assert_eq!(names(granted.prune(everything()).await.unwrap().unwrap()), ["web"]);
    assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]), "foreign");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_of_a_real_engine_sees_itself_and_is_undone_by_nothing() {
    let engine = Dockerd::start();
    let bench = Bench::new(|_, config| {
        config.containers = Config { socket: Some(engine.path().join("docker.sock")), timeout_secs: 20 };
    });
    let all = scope(|s| (s.stop, s.allow_irreversible) = (true, true));
    let web = engine.run("web", &["sleep", "600"]);
    let state = || engine.docker(&["inspect", "-f", "{{.State.Status}}", "web"]);

    let mut plan = bench.plan(&all, &all).await;
    assert_eq!(plan.stop("web".into(), 0).await.unwrap().unwrap().state, "exited");
    assert!(matches!(plan.stop("web".into(), 0).await.unwrap(), Err(types::Failure::Conflict(_))));
    assert_eq!(plan.list(everything()).await.unwrap().unwrap()[0].state, "exited");
    assert_eq!(plan.remove("web".into()).await.unwrap().unwrap().id, web);
    assert!(plan.list(everything()).await.unwrap().unwrap().is_empty());
    assert!(matches!(plan.remove("web".into()).await.unwrap(), Err(types::Failure::NotFound(_))));
    let reports = plan.recorder.reports();
    assert_eq!(reports.iter().map(|r| r.irreversible).collect::<Vec<_>>(), [false, true]);
    assert_eq!(state(), "running");

    // A verb that stops a container and then fails leaves it running; removal stays, and is
    // reported as it is.
    engine.run("job", &["true"]);
    engine.docker(&["wait", "job"]);
    let mut call = bench.call(&all, &all, EffectClass::Irreversible).await;
    call.stop("web".into(), 0).await.unwrap().unwrap();
    call.remove("job".into()).await.unwrap().unwrap();
    assert_eq!(state(), "exited");
    call.recorder.end(false).await;
    assert_eq!(state(), "running");
    let states: Vec<_> = call.recorder.reports().iter().map(|r| r.state).collect();
    use viworks_protocol::outcome::EffectState;
    assert_eq!(states, [EffectState::RolledBack, EffectState::Applied]);
    assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]), "web");
}
