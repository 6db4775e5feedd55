//! What operators type: the command line against a real backend and a real gateway. Its
//! exit codes and its JSON are what their scripts rely on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cli::Operator;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{eventually, workspace};

use crate::Result;

#[test]
fn an_operator_publishes_runs_and_reads() -> Result {
    let cluster = Cluster::start()?;
    let admin = Operator::of(&cluster, "admin")?;
    let guests = workspace().join("tests/guests/echo");
    let wasm = viworks_tests::program::component("tests/guests", "viworks_guest_echo")?;
    let key = cluster.path("keys/release.key.pem");
    let bundle =
        cluster.sign(&wasm, &guests.join("plugin.toml"), &[workspace().join("wit"), guests.join("wit")], &key)?;
    let published = admin.types(&["plugins", "publish", &bundle.to_string_lossy()])?;
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;

    let agents = admin.types(&["agents", "--status", "online"])?;
    assert!(agents.stdout.lines().any(|l| l.starts_with("web-01") && l.contains("1/1")), "{}", agents.stdout);
    let verb = admin.types(&["verbs", "show", "echo_args"])?;
    assert!(verb.stdout.contains("The arguments, as text") && verb.stdout.contains("from 1 to 100"), "{}", verb.stdout);

    let args = ["-a", "first-name=Ada", "-a", "times=3", "-a", "colors=red,dark-blue", "-a", "ratio=0.5"];
    let (code, echoed) = admin.json(&[&["run", "echo_args", "--on", "web-01"][..], &args].concat())?;
    assert_eq!(code, Some(0), "{echoed}");
    let text = echoed["invocations"][0]["result"].as_str().unwrap_or_default();
    assert!(text.starts_with("Ada 3 Some([") && text.ends_with("Some(0.5)"), "{echoed}");

    let how = r#"how={"conflict":"it is there already"}"#;
    let failed = admin.types(&["run", "fail", "--all", "-a", how])?;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stdout.contains("conflict: it is there already"), "{}", failed.stdout);

    let wrong = admin.types(&["run", "echo_args", "--on", "web-01", "-a", "first_name=x", "-a", "times=900"])?;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("argument times: \"900\" is not a whole number from 1 to 100"), "{}", wrong.stderr);
    let long = format!("text={}", "x".repeat(70_000));
    let wrong = admin.types(&["run", "ping", "--on", "web-01", "-a", &long])?;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("text: ") && wrong.stderr.contains("at most 65536 characters"), "{}", wrong.stderr);
    for line in
        [&["run", "no_such_verb", "--all"][..], &["run", "quiet", "--on", "nobody"], &["run", "quiet", "--site", "x"]]
    {
        assert_eq!(admin.types(line)?.code, Some(2), "{line:?}");
    }

    let (_, commands) = admin.json(&["commands", "list", "--verb", "fail"])?;
    assert_eq!(commands["items"].as_array().map(Vec::len), Some(1), "{commands}");
    let audit = admin.types(&["audit"])?;
    assert!(audit.stdout.contains("cli-admin"), "{}", audit.stdout);
    Ok(())
}

#[test]
fn waiting_ends_cancelling_works_and_watching_goes_on() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish_guest("nap")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let operator = Operator::of(&cluster, "operator")?;
    let (code, unfinished) = operator.json(&["run", "nap", "--on", "web-01", "-a", "ms=50000", "--wait", "2"])?;
    assert_eq!(code, Some(4), "{unfinished}");
    let id = unfinished["id"].as_str().unwrap_or_default().to_owned();
    let watching = std::thread::scope(|scope| {
        let watch = scope.spawn(|| operator.json(&["commands", "watch", &id]));
        let cancelled = operator.types(&["commands", "cancel", &id]);
        watch.join().map(|watched| (watched, cancelled))
    });
    let Ok((watched, cancelled)) = watching else { return Err(std::io::Error::other("the watcher panicked")) };
    assert_eq!(cancelled?.code, Some(0));
    let (code, watched) = watched?;
    assert_eq!((code, &watched["counts"]["cancelled"]), (Some(1), &json!(1)), "{watched}");

    let (code, short) = operator.json(&["run", "nap", "--on", "web-01", "-a", "ms=1500"])?;
    assert_eq!(code, Some(0), "the stream told of the end: {short}");
    let refused = operator.types(&["audit"])?;
    assert_eq!(refused.code, Some(2), "an operator is no administrator");
    Ok(())
}

#[test]
fn tokens_are_made_used_and_revoked() -> Result {
    let cluster = Cluster::start()?;
    let admin = Operator::of(&cluster, "admin")?;
    let made = admin.types(&["tokens", "create", "--name", "ci", "--role", "viewer", "--expires", "90d"])?;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let viewer = Operator { url: admin.url.clone(), token: made.stdout.trim().to_owned() };
    assert!(viewer.token.starts_with("viw_"));
    assert_eq!(viewer.types(&["agents"])?.code, Some(0));
    assert_eq!(admin.types(&["tokens", "revoke", "ci"])?.code, Some(0));
    eventually("the token refused", Duration::from_secs(20), || {
        Ok((viewer.types(&["agents"])?.code == Some(2)).then_some(()))
    })?;
    let (_, tokens) = admin.json(&["tokens"])?;
    let names: Vec<&str> =
        tokens["items"].as_array().into_iter().flatten().filter_map(|t| t["name"].as_str()).collect();
    assert!(!names.contains(&"ci"), "{tokens}");
    Ok(())
}

/// The PKI of the command line carries a whole site.
#[test]
fn certificates_of_the_command_line_are_read_by_openssl() -> Result {
    let dir = tempfile::tempdir()?;
    let pki = dir.path().join("pki");
    let at = |name: &str| pki.join(name).to_string_lossy().into_owned();
    let nobody = Operator { url: "http://127.0.0.1:9".into(), token: "x".into() };
    let root = pki.to_string_lossy().into_owned();
    for line in [
        &["pki", "init", "--out", &root][..],
        &["pki", "issue", "backend", "--dir", &root, "--dns", "localhost", "--ip", "127.0.0.1"],
        &["pki", "issue", "agent", "--dir", &root, "web-01"],
        &["pki", "issue", "agent", "--dir", &root, "web-02"],
        &["pki", "revoke", "--dir", &root, &at("agents/web-02.pem")],
    ] {
        let ran = nobody.types(line)?;
        assert_eq!(ran.code, Some(0), "{line:?}: {}", ran.stderr);
    }
    let openssl = |args: &[&str]| {
        let output = Command::new(Path::new("openssl")).args(args).output()?;
        Ok::<_, std::io::Error>((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (ca, crl) = (at("ca.pem"), at("crl.pem"));
    let verify = |purpose: &str, cert: &str| {
        let checked =
            ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &ca, "-crl_check", "-CRLfile", &crl, cert];
        openssl(&checked).map(|(ok, _)| ok)
    };
    assert!(verify("sslserver", &at("backend.pem"))?);
    assert!(verify("sslclient", &at("agents/web-01.pem"))?);
    assert!(!verify("sslclient", &at("agents/web-02.pem"))?, "it is revoked");
    assert!(!verify("sslclient", &at("backend.pem"))? && !verify("sslserver", &at("agents/web-01.pem"))?);
    let pin = nobody.types(&["pki", "pin", &at("backend.pem")])?.stdout;
    let by_hand = Command::new("bash")
        .args(["-c", "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64", "-", &at("backend.pem")])
        .output()?;
    assert_eq!(pin.trim(), format!("sha256/{}", String::from_utf8_lossy(&by_hand.stdout).trim()));
    Ok(())
}
