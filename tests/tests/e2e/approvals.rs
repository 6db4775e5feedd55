//! Two pairs of eyes: a command that needs approval reaches no gateway before another
//! operator has signed it with a key of their own.

use std::fs;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cli::Operator;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{program, run};

use crate::Result;

#[test]
fn a_command_waits_for_another_operators_signature() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let key = cluster.path("keys/bob");
    run(&program("viworks-sign")?, ["keygen".as_ref(), "--out".as_ref(), key.as_os_str()])?;
    let (admin, alice) = (Operator::of(&cluster, "admin")?, Operator::of(&cluster, "operator")?);
    let public = key.with_extension("pub.pem").to_string_lossy().into_owned();
    let private = format!("file:{}", key.with_extension("key.pem").display());
    let add = ["approvers", "add", "--operator", "cli-admin", "--key", &public];
    assert_eq!(alice.types(&add)?.code, Some(2), "no operator makes approvers");
    assert_eq!(admin.types(&add)?.code, Some(0));

    let ran = alice.types(&["run", "add_user", "--on", "web-01", "--arg", "name=ada", "--approvals", "1"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let id = ran.stdout.trim();
    let command = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
    assert_eq!((&command["state"], &command["counts"]["queued"]), (&json!("awaiting_approval"), &json!(1)));

    assert_eq!(alice.types(&["approve", id, "--key", &private, "--yes"])?.code, Some(2), "not by who asked");
    assert_eq!(admin.types(&["approve", id, "--key", &private])?.code, Some(2), "nobody is there to be asked");
    assert!(!fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default().contains("ada:"));

    let approved = admin.types(&["approve", id, "--key", &private, "--yes"])?;
    assert_eq!(approved.code, Some(0), "{}", approved.stderr);
    for shown in ["add_user", "name: \"ada\"", "web-01", "cli-operator"] {
        assert!(approved.stdout.contains(shown), "{shown} is not in {}", approved.stdout);
    }
    let done = cluster.finished(id, Duration::from_secs(60))?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    assert!(fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"));
    Ok(())
}
