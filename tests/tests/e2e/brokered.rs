//! A gateway without rights and its broker: what `check` says of them, and a broker that is
//! killed in the middle of what it does. What a gateway does through its broker when nothing
//! goes wrong is told by the stories of people, tunnels and containers, each told twice.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::{Gateway, Setup, UNPRIVILEGED};
use viworks_tests::program::{Running, eventually, program, run, workspace};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

fn brokered(cluster: &Cluster, id: &str) -> std::io::Result<Gateway> {
    let mut setup = Setup::new(cluster, id)?;
    setup.brokered = true;
    setup.start(cluster)
}

fn accounts_named(gateway: &Gateway, name: &str) -> usize {
    let passwd = fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default();
    passwd.lines().filter(|line| line.starts_with(&format!("{name}:"))).count()
}

#[test]
fn a_broker_killed_at_random_instants_leaves_all_or_nothing_or_says_so() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut gateway = brokered(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process.pid()))?;
    assert!(status.contains(&format!("Uid:\t{UNPRIVILEGED}\t{UNPRIVILEGED}")), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let broker = gateway.broker.as_ref().map(|b| b.pid()).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{broker}/status"))?;
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");

    let mut seen = Vec::new();
    for round in 0..8_u64 {
        let name = format!("user{round}");
        let body =
            json!({"verb": "add_user", "args": {"name": name}, "agent_targets": ["web-01"], "expires_in_secs": 600});
        let answer = cluster.api.post("/commands", &body)?.expect_status(202)?;
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        std::thread::sleep(Duration::from_millis(round * 9));
        if let Some(broker) = &mut gateway.broker {
            broker.kill()?;
        }
        gateway.restart_broker()?;
        let done = cluster.finished(&id, SOON)?;
        let state = done["invocations"][0]["state"].as_str().unwrap_or_default().to_owned();
        match state.as_str() {
            "succeeded" => assert_eq!(accounts_named(&gateway, &name), 1, "{done}"),
            "failed" => assert_eq!(accounts_named(&gateway, &name), 0, "{done}"),
            "unknown" => assert!(accounts_named(&gateway, &name) <= 1),
            other => panic!("{other}: {done}"),
        }
        seen.push(state);
    }
    // Afterwards it is as it was.
    let done = cluster.run("web-01", "add_user", &json!({"name": "after"}))?;
    assert_eq!(done["state"], "succeeded", "{done}; before: {seen:?}");
    let filed = gateway.broker_audit();
    assert!(filed.iter().any(|line| line["decision"] == "applied" && line["kind"] == "accounts.create"), "{filed:?}");
    Ok(())
}

fn check(gateway: &Gateway, uid: u32) -> std::io::Result<String> {
    let config = gateway.dir.join("gateway.toml");
    let uid = uid.to_string();
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    let installed = gateway.dir.join("viworks-gateway");
    let installed = if installed.exists() { installed } else { program("viworks-gateway")? };
    let Output { stdout, stderr, .. } = command.arg(installed).args(["check", "--config"]).arg(config).output()?;
    Ok(String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn check_says_what_is_wrong_with_the_broker() -> Result {
    let cluster = Cluster::start()?;
    let mut gateway = brokered(&cluster, "web-01")?;
    let sound = check(&gateway, UNPRIVILEGED)?;
    assert!(sound.contains("the configuration is sound"), "{sound}");

    // Root is not the gateway either.
    let stranger = check(&gateway, 0)?;
    assert!(stranger.contains("takes no requests of this user"), "{stranger}");
    eventually("the stranger in the broker's audit log", SOON, || {
        let told = gateway.broker_audit().iter().any(|line| line["code"] == "peer" && line["uid"] == 0);
        Ok(told.then_some(()))
    })?;

    let policy = gateway.dir.join("policy.toml");
    run(Path::new("/bin/chmod"), ["g+w", &policy.to_string_lossy()])?;
    let open = check(&gateway, UNPRIVILEGED)?;
    assert!(open.contains("can be written by others"), "{open}");
    run(Path::new("/bin/chmod"), ["g-w", &policy.to_string_lossy()])?;

    // Another policy than the broker's: its file was named by the environment.
    let other = gateway.dir.join("other.toml");
    fs::write(&other, "[capabilities.system]\n")?;
    let config = gateway.dir.join("gateway.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace(&format!("policy = {policy:?}"), &format!("policy = {other:?}")))?;
    let differs = check(&gateway, UNPRIVILEGED)?;
    assert!(differs.contains("judges by another policy"), "{differs}");
    fs::write(&config, text)?;

    if let Some(broker) = &mut gateway.broker {
        broker.terminate(SOON)?;
    }
    let gone = check(&gateway, UNPRIVILEGED)?;
    assert!(gone.contains("no broker listens"), "{gone}");
    Ok(())
}

/// As systemd does it: the socket is there first, and whoever connects starts the broker.
#[test]
fn a_broker_is_started_by_its_socket() -> Result {
    let cluster = Cluster::start()?;
    let mut gateway = brokered(&cluster, "web-01")?;
    if let Some(broker) = &mut gateway.broker {
        broker.terminate(SOON)?;
    }
    let socket = gateway.dir.join("broker.sock");
    let config = gateway.dir.join("gateway.toml");
    let (program, log) = (program("viworks-gateway")?, gateway.dir.join("activated.log"));
    let activate = |name: &str| -> std::io::Result<Running> {
        // One that was stopped leaves its file.
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("/usr/bin/systemd-socket-activate");
        command.arg("-l").arg(&socket).arg(format!("--fdname={name}")).arg(&program);
        command.args(["broker", "--config"]).arg(&config);
        let running = Running::start_with(&mut command, &log)?;
        eventually("the socket", SOON, || Ok(socket.exists().then_some(())))?;
        // The unit gives it to the gateway's user.
        run(Path::new("/bin/chmod"), ["666", &socket.to_string_lossy()])?;
        Ok(running)
    };
    let mut running = activate("viworks-broker")?;
    let sound = check(&gateway, UNPRIVILEGED)?;
    assert!(sound.contains("the configuration is sound"), "{sound} {}", fs::read_to_string(&log)?);
    assert!(running.terminate(SOON)?.success());

    let mut running = activate("somebody-else")?;
    let refused = check(&gateway, UNPRIVILEGED)?;
    assert!(!refused.contains("is sound"), "{refused}");
    assert!(!running.wait(SOON)?.success());
    assert!(fs::read_to_string(&log)?.contains("is named"));
    Ok(())
}

/// The units as they are shipped, but for where the program is.
#[test]
fn the_units_are_sound_and_confined() -> Result {
    let dir = tempfile::tempdir()?;
    let mut units = Vec::new();
    for name in ["viworks-gateway.service", "viworks-broker.service", "viworks-broker.socket"] {
        let text = fs::read_to_string(workspace().join("deploy/systemd").join(name))?;
        let path = dir.path().join(name);
        fs::write(&path, text.replace("/usr/bin/viworks-gateway", &program("viworks-gateway")?.to_string_lossy()))?;
        units.push(path.display().to_string());
    }
    let analyze = Path::new("/usr/bin/systemd-analyze");
    let verify = [&["verify".to_owned(), "--man=no".to_owned()], &units[..]].concat();
    let said = Command::new(analyze).args(&verify).output()?;
    let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && complaints.is_empty(), "{complaints}");
    // In tenths: the gateway at most 2.5; the broker, which is root, 2.7.
    for (unit, most) in [(&units[0], "25"), (&units[1], "27")] {
        let threshold = format!("--threshold={most}");
        run(analyze, ["security", "--offline=true", "--no-pager", &threshold, unit])?;
    }
    Ok(())
}
