//! Secrets reach the script that they are meant for, and nothing else ever shows them.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use viworks_signing::grant::{Patterns, Scopes, ScriptsScope, SecretsScope};
use viworks_signing::release::EffectClass;

use super::super::wit::viworks::gateway::scripts::{Host as _, SecretVariable};
use super::super::wit::viworks::gateway::secrets::Host as _;
use super::super::wit::viworks::gateway::types;
use super::*;
use crate::effects::bench::Bench;

const SECRET: &str = "correct horse battery staple";
const SCRIPT: &str = "#!/bin/sh\nprintf %s \"$TOKEN\" | wc -c\necho \"said: $TOKEN\" >&2\n";

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn bench() -> Bench {
    Bench::new(|dir, config| {
        let (secrets, scripts) = (dir.join("secrets"), dir.join("scripts"));
        std::fs::DirBuilder::new().mode(0o700).create(&secrets).unwrap();
        std::fs::DirBuilder::new().mode(0o755).create(&scripts).unwrap();
        write(&secrets.join("deploy-token"), &format!("{SECRET}\n"), 0o600);
        write(&secrets.join("loose"), SECRET, 0o644);
        write(&scripts.join("use.sh"), SCRIPT, 0o755);
        config.secrets.directory = Some(secrets);
        config.scripts.root = Some(scripts);
    })
}

fn scopes(names: &str, uses: &[&str]) -> Scopes {
    let pin = hex::encode(Sha256::digest(SCRIPT));
    Scopes {
        scripts: Some(ScriptsScope { pins: [("use.sh".to_owned(), pin)].into(), ..ScriptsScope::default() }),
        secrets: Some(SecretsScope {
            names: Patterns::parse([names]).unwrap(),
            uses: uses.iter().map(|used| (*used).to_owned()).collect(),
        }),
        ..Scopes::default()
    }
}

fn token(secret: &str) -> Vec<SecretVariable> {
    vec![SecretVariable { variable: "TOKEN".into(), secret: secret.into() }]
}

/// Whether any file below holds the secret.
fn shows(dir: &Path) -> Option<std::path::PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| !path.ends_with("secrets")).find_map(|path| match path.is_dir() {
        true => shows(&path),
        false => {
            let bytes = std::fs::read(&path).unwrap();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()).then_some(path)
        }
    })
}

#[tokio::test]
async fn a_script_gets_the_bytes_and_nothing_else_shows_them() {
    let bench = bench();
    let all = scopes("deploy-*", &["scripts"]);
    let mut call = bench.call(&all, &all, EffectClass::Irreversible).await;
    let handle = call.open("deploy-token".into()).await.unwrap().unwrap();
    assert!(!handle.contains("deploy") && !handle.contains(SECRET), "{handle}");
    assert_eq!(call.open("deploy-token".into()).await.unwrap().unwrap(), handle, "one handle a secret");
    let output = call.run_with_secrets("use.sh".into(), vec![], token(&handle)).await.unwrap().unwrap();
    assert_eq!((output.exit_code, output.stdout.trim()), (0, "28"), "{output:?}");
    assert_eq!(output.stderr.trim(), "said: [secret deploy-token]");
    let reports = format!("{:?}", call.recorder.reports());
    assert!(!reports.contains(SECRET), "{reports}");
    drop(call);
    assert_eq!(shows(bench.dir.path()), None, "a file shows the secret");
}

#[tokio::test]
async fn what_the_scope_does_not_name_is_denied() {
    let bench = bench();
    let (all, other) = (scopes("*", &["scripts"]), scopes("other-*", &["scripts"]));
    let denied = |answer: Result<_, types::Failure>| match answer {
        Err(types::Failure::Denied(denial)) => denial.rule,
        other => panic!("{other:?}"),
    };
    let mut call = bench.call(&all, &other, EffectClass::Irreversible).await;
    assert_eq!(denied(call.open("deploy-token".into()).await.unwrap()), "policy: secrets.names");

    let unused = scopes("*", &[]);
    let mut call = bench.call(&all, &unused, EffectClass::Irreversible).await;
    let handle = call.open("deploy-token".into()).await.unwrap().unwrap();
    let run = call.run_with_secrets("use.sh".into(), vec![], token(&handle)).await.unwrap();
    assert_eq!(denied(run.map(|_| String::new())), "policy: secrets.uses");
    assert!(call.recorder.reports().is_empty());

    let none = Scopes { secrets: None, ..scopes("*", &[]) };
    let mut call = bench.call(&all, &none, EffectClass::Irreversible).await;
    assert_eq!(denied(call.open("deploy-token".into()).await.unwrap()), "grant: secrets");
}

#[tokio::test]
async fn handles_are_the_invocations_own_and_files_must_be_private() {
    let bench = bench();
    let all = scopes("*", &["scripts"]);
    let mut call = bench.call(&all, &all, EffectClass::Irreversible).await;
    for guess in ["secret#1", "deploy-token", ""] {
        let run = call.run_with_secrets("use.sh".into(), vec![], token(guess)).await.unwrap();
        assert!(matches!(run, Err(types::Failure::InvalidArgument(_))), "{guess}: {run:?}");
    }
    assert!(matches!(call.open("loose".into()).await.unwrap(), Err(types::Failure::Unavailable(_))));
    assert!(matches!(call.open("missing".into()).await.unwrap(), Err(types::Failure::NotFound(_))));
    for name in ["../secrets/deploy-token", ".hidden", "", "a/b"] {
        let opened = call.open(name.into()).await.unwrap();
        assert!(matches!(opened, Err(types::Failure::InvalidArgument(_))), "{name}");
    }
    let handle = call.open("deploy-token".into()).await.unwrap().unwrap();
    for variable in ["PATH", "LD_PRELOAD", "VIW_INVOCATION", "lower", "A=B", ""] {
        let asked = vec![SecretVariable { variable: variable.into(), secret: handle.clone() }];
        let run = call.run_with_secrets("use.sh".into(), vec![], asked).await.unwrap();
        assert!(matches!(run, Err(types::Failure::InvalidArgument(_))), "{variable}: {run:?}");
    }
}

#[test]
fn the_environment_is_a_source_too_and_bytes_hide() {
    // Set for every test process by cargo.
    let prefix = "CARGO_PKG_".to_owned();
    let config = Config { directory: None, environment_prefix: Some(prefix) };
    let found = sources::find(&config, "name").unwrap();
    assert_eq!(found.reveal(), b"viworks-gateway");
    assert_eq!(format!("{found:?}"), "Bytes(…)");
    assert!(matches!(sources::find(&Config::default(), "name"), Err(Failure::NotFound(_))));
}
