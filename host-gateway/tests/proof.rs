//! What proves afterwards what an invocation did: its receipt, its recording, and that
//! neither shows a secret. Real guests through the real executor.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod common;

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Gateway, PATIENCE, failure, guest, result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use viworks_gateway::recording::file::Recording;
use viworks_gateway::recording::replay::replay;
use viworks_gateway::recording::{Config, Recordings};
use viworks_protocol::outcome::Outcome;
use viworks_protocol::receipt::{self, Head};
use viworks_signing::keys::PublicKey;

const SECRET: &str = "correct horse battery staple";
const SCRIPT: &str = "#!/bin/sh\nprintf %s \"$TOKEN\" | wc -c\necho \"said: $TOKEN\" >&2\n";

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// With a secret, and a script that says it.
fn handing(names: &str) -> Gateway {
    let pin = hex::encode(Sha256::digest(SCRIPT));
    let scopes = format!(
        "[scripts]\npins = {{ \"use.sh\" = \"{pin}\" }}\n[secrets]\nnames = [{names:?}]\nuses = [\"scripts\"]\n"
    );
    Gateway::with_host(&scopes, |dir, config| {
        let (secrets, scripts) = (dir.join("secrets"), dir.join("scripts"));
        std::fs::DirBuilder::new().mode(0o700).create(&secrets).unwrap();
        std::fs::DirBuilder::new().mode(0o755).create(&scripts).unwrap();
        write(&secrets.join("token"), SECRET, 0o600);
        write(&scripts.join("use.sh"), SCRIPT, 0o755);
        config.secrets.directory = Some(secrets);
        config.scripts.root = Some(scripts);
    })
}

fn record(gateway: &Gateway) -> Recordings {
    Recordings::open(gateway.dir.path(), &Config { enabled: true, ..Config::default() }).unwrap()
}

/// The one recording, once it is written.
async fn recorded(gateway: &Gateway) -> (PathBuf, Recording) {
    let dir = gateway.dir.path().join("recordings");
    let read = async {
        loop {
            let file = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()).next();
            if let Some(path) = file
                && let Ok(recording) = Recording::parse(&std::fs::read_to_string(&path).unwrap())
            {
                return (path, recording);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a recording is written")
}

/// A file below that holds the secret, the secret's own aside.
fn shows(dir: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| !path.ends_with("secrets")).find_map(|path| match path.is_dir() {
        true => shows(&path),
        false => {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()).then_some(path)
        }
    })
}

#[tokio::test]
async fn a_change_ends_in_a_receipt_and_a_read_does_not() {
    let gateway = Gateway::new("[state]").with(&["hostile", "echo"]).await;
    let mut running = gateway.executor(2, 2);
    let key = PublicKey::from_pem(gateway.journal.receipt_key().unwrap()).unwrap();
    let agent = "web-01".parse().unwrap();
    let mut head = Head::genesis();
    let mut fewest = u64::MAX;
    for effects in [2, 3, 2, 3, 2] {
        let warrant = gateway.warrant("effect_flood", json!({"effects": effects}));
        let before = gateway.journal.commits();
        let report = running.run(warrant.clone()).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
        // What waits for the next commit gets one of its own where the next is long in coming.
        fewest = fewest.min(gateway.journal.commits() - before - effects);
        let envelope = report.receipt.as_deref().expect("a receipt");
        let verified = receipt::verify(envelope, &agent, &[key]).unwrap();
        assert_eq!(verified.follows(&head), Ok(()));
        head = verified.head();
        let receipt = verified.receipt();
        assert!(receipt.tells_of(&report));
        assert_eq!(receipt.warrant_sha256, warrant.sha256());
        assert_eq!((receipt.verb.as_str(), receipt.granted.as_slice()), ("effect_flood", &["state".to_owned()][..]));
        assert_eq!(receipt.effects.len() as u64, effects);
        assert!(serde_json::to_vec(envelope).unwrap().len() <= 2 * 1024);
    }
    assert!(fewest <= 1, "{fewest} commits beside those of the effects");
    let read = running.run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert!(read.receipt.is_none() && read.outcome == Outcome::Succeeded);
}

#[tokio::test]
async fn a_recording_replays_the_same_and_shows_where_another_departs() {
    let gateway = Gateway::new("[state]").with(&["hostile"]).await;
    let mut running = gateway.executor(2, 2);
    running.executor.record(record(&gateway));
    let report = running.run(gateway.warrant("effect_flood", json!({"effects": 3}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    let (path, recording) = recorded(&gateway).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(recording.end.effects.len(), 3);

    let component = guest("hostile");
    let same = replay(&recording, &component).await.unwrap();
    assert!(same.equal, "{same:?}");
    // The replay's host is this machine's: nothing of it was touched.
    assert_eq!(recording.end, same.replayed);

    // A version that sets something else at its second call.
    let mut other = recording.clone();
    let text = other.to_lines().unwrap().replace("[\"flood\",\"1\"]", "[\"flood\",\"one\"]");
    other = Recording::parse(&text).unwrap();
    let departs = replay(&other, &component).await.unwrap();
    assert!(!departs.equal);
    let departure = departs.departure.clone().expect("a departure");
    assert_eq!(departure.called.unwrap()["args"], json!(["flood", "1"]));
    assert_eq!(departure.recorded.unwrap()["args"], json!(["flood", "one"]));
    assert_eq!((departs.replayed.outcome, departs.replayed.effects.len()), (Outcome::Failed, 1));
    assert!(departs.recorded.effects.len() == 3);

    // One that makes a call less.
    let mut longer = recording.clone();
    longer.head.args.insert("effects".into(), json!(2));
    let departs = replay(&longer, &component).await.unwrap();
    let departure = departs.departure.clone().expect("a departure");
    assert_eq!((departure.called, departs.equal), (None, false));
    // The same calls with another result.
    let mut result = recording.clone();
    result.end.result = Some(json!(4));
    let departs = replay(&result, &component).await.unwrap();
    assert!(!departs.equal && departs.departure.is_none());
    assert!(departs.in_words().contains("result"), "{}", departs.in_words());
}

#[tokio::test]
async fn a_secret_is_handed_over_and_shown_nowhere() {
    let gateway = handing("tok*").with(&["handover"]).await;
    let mut running = gateway.executor(2, 2);
    running.executor.record(record(&gateway));
    let report = running.run(gateway.warrant("hand_over", json!({"script": "use.sh", "secret": "token"}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    assert_eq!(result(&report), Value::from("28\nsaid: [secret token]\n"));
    assert!(!serde_json::to_string(&*report).unwrap().contains(SECRET));
    let (_, recording) = recorded(&gateway).await;
    assert!(!recording.to_lines().unwrap().contains(SECRET));
    assert!(replay(&recording, &guest("handover")).await.unwrap().equal);
    assert_eq!(shows(gateway.dir.path()), None, "a file shows the secret");
}

#[tokio::test]
async fn a_secret_that_the_policy_does_not_name_is_denied() {
    let gateway = handing("other-*").with(&["handover"]).await;
    let mut running = gateway.executor(2, 2);
    let report = running.run(gateway.warrant("hand_over", json!({"script": "use.sh", "secret": "token"}))).await;
    assert_eq!(report.outcome, Outcome::Denied, "{report:?}");
    assert_eq!(failure(&report), ("denied", Some("policy: secrets.names")));
    let key = PublicKey::from_pem(gateway.journal.receipt_key().unwrap()).unwrap();
    let agent = "web-01".parse().unwrap();
    let verified = receipt::verify(report.receipt.as_deref().unwrap(), &agent, &[key]).unwrap();
    assert_eq!(verified.receipt().denied, ["policy: secrets.names"]);
    assert!(verified.receipt().granted.is_empty() && report.effects.is_empty());
}
