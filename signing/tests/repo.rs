//! `viworks-sign repo` as its people run it: a ceremony of several, releases, revocations,
//! rotations, and a copy on a medium.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where what it needs is missing")]

#[path = "../src/fixture.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod fixture;

use fixture::{TESTDATA, sample};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

struct Site {
    dir: TempDir,
}

const ONLINE: [&str; 4] = ["--key", "snapshot.key.pem", "--key", "timestamp.key.pem"];

impl Site {
    /// Keys of every role, and a signed release.
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        for name in [
            "root-1",
            "root-2",
            "root-3",
            "targets-1",
            "targets-2",
            "release",
            "security",
            "revocation",
            "snapshot",
            "timestamp",
        ] {
            site.ok(&["keygen", "--out", name]);
        }
        std::fs::write(site.path("built.wasm"), sample()).unwrap();
        site.release("1.2.0", 3);
        site
    }

    /// With everything published.
    fn published() -> Self {
        let site = Self::new();
        let keys = [
            "root-1",
            "root-2",
            "targets-1",
            "targets-2",
            "release",
            "security",
            "revocation",
            "snapshot",
            "timestamp",
        ];
        let keys: Vec<String> = keys.iter().flat_map(|key| ["--key".to_owned(), format!("{key}.key.pem")]).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let answer = site.json(&[&INIT[..], &keys].concat());
        assert_eq!((&answer["result"], &answer["missing"]), (&"published".into(), &Value::Array(vec![])));
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// `out/sample.wasm` in this version.
    fn release(&self, version: &str, sequence: u32) {
        let toml = std::fs::read_to_string(format!("{TESTDATA}/sample/plugin.toml")).unwrap();
        let toml = toml.replace("version = \"1.2.0\"", &format!("version = \"{version}\""));
        let toml = toml.replace("sequence = 3", &format!("sequence = {sequence}"));
        std::fs::write(self.path("plugin.toml"), toml).unwrap();
        self.ok(&["sign", "built.wasm", "--key", "release.key.pem", "--out", "out"]);
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_viworks-sign")).args(args).current_dir(self.dir.path()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--output", "json"]].concat())).unwrap()
    }

    fn fails(&self, code: i32, words: &str, args: &[&str]) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let read = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = read.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const INIT: [&str; 16] = [
    "repo",
    "init",
    "repo",
    "--role",
    "root=root-1.pub.pem,root-2.pub.pem,root-3.pub.pem",
    "--role",
    "targets=targets-1.pub.pem,targets-2.pub.pem",
    "--role",
    "releases=release.pub.pem,security.pub.pem",
    "--role",
    "revocation=revocation.pub.pem",
    "--role",
    "snapshot=snapshot.pub.pem",
    "--role",
    "timestamp=timestamp.pub.pem",
    "--air-gap",
];

#[test]
fn people_of_a_ceremony_sign_one_after_another() {
    let site = Site::new();
    let answer = site.json(&[&INIT[..], &["--key", "root-1.key.pem"]].concat());
    assert_eq!((&answer["result"], &answer["signatures"]), (&"pending".into(), &1.into()));
    assert!(!site.path("repo/metadata/timestamp.json").exists());
    for person in ["root-3", "targets-1", "targets-2", "release", "security"] {
        assert_eq!(
            site.json(&["repo", "sign", "repo", "--key", &format!("{person}.key.pem")])["result"],
            "pending",
            "{person}"
        );
    }
    let shown = site.run(&["repo", "show", "repo"]);
    assert_eq!(shown.status.code(), Some(1), "nothing that a client would take yet");
    let last = site.ok(&["repo", "sign", "repo", "--key", "revocation.key.pem"]);
    assert!(
        last.contains("waiting    snapshot needs 1 more") && last.contains("waiting    timestamp needs 1 more"),
        "{last}"
    );
    let done = site.ok(&[&["repo", "timestamp", "repo"], &ONLINE[..]].concat());
    assert!(done.contains("published  1.releases.json, 1.revocation.json, 1.root.json"), "{done}");
    assert_eq!(site.files("repo/pending"), [""; 0]);
    assert!(site.ok(&["repo", "show", "repo"]).contains("a client says  OK"));
}

#[test]
fn a_release_is_added_and_only_one_that_verifies() {
    let site = Site::published();
    site.fails(1, "E_SIGNATURE", &["repo", "add", "repo", "out/sample.wasm", "--trust", "root-1.pub.pem"]);
    let add = ["repo", "add", "repo", "out/sample.wasm", "--key"];
    let half = site.json(&[&add[..], &["release.key.pem"]].concat());
    assert_eq!((&half["result"], &half["missing"][0]["role"]), (&"pending".into(), &"releases".into()));
    let whole = site.json(&[&["repo", "sign", "repo", "--key", "security.key.pem"], &ONLINE[..]].concat());
    assert_eq!(whole["published"].as_array().map(Vec::len), Some(3), "{whole}");
    let shown = site.json(&["repo", "show", "repo"]);
    let target = &shown["targets"]["sample-1.2.0.wasm"];
    assert_eq!((&target["custom"]["sequence"], &shown["code"]), (&3.into(), &"OK".into()));
    let digest = target["hashes"]["sha256"].as_str().unwrap();
    assert_eq!(
        std::fs::read(site.path(&format!("repo/targets/{digest}.sample-1.2.0.wasm"))).unwrap(),
        std::fs::read(site.path("out/sample.wasm")).unwrap()
    );

    site.release("1.1.0", 2);
    site.fails(1, "has sequence 0.2, and 0.3 was released already", &add[..4]);
    std::fs::write(site.path("built.wasm"), [sample(), vec![0, 2, 1, b'x']].concat()).unwrap();
    site.release("1.2.0", 4);
    site.fails(1, "sample-1.2.0.wasm is there already with other bytes", &add[..4]);
}

#[test]
fn what_was_revoked_stays_revoked() {
    let site = Site::published();
    let digest = "ab".repeat(32);
    let keys = [&["--key", "revocation.key.pem"], &ONLINE[..]].concat();
    site.ok(&[&["repo", "revoke", "repo", "--digest", &digest, "--action", "drain", "--reason", "leaks"], &keys[..]]
        .concat());
    site.ok(
        &[&["repo", "revoke", "repo", "--revoke-key", "release.pub.pem", "--floor", "sample=0.3"], &keys[..]].concat()
    );
    let shown = site.json(&["repo", "show", "repo"]);
    let list = &shown["revocations"];
    assert_eq!((&list["digests"][0]["action"], &list["floors"][0]["maxSequence"]), (&"drain".into(), &3.into()));
    assert_eq!(list["keys"].as_array().map(Vec::len), Some(1));
    for bad in [&["--digest", "abc"][..], &["--floor", "sample"], &["--floor", "Sample=0.1"], &[]] {
        site.fails(2, "", &[&["repo", "revoke", "repo"], bad].concat());
    }
}

#[test]
fn keys_change_by_the_old_and_the_new_and_files_are_renewed() {
    let site = Site::published();
    site.ok(&["keygen", "--out", "root-4"]);
    let rotate = ["repo", "rotate-root", "repo", "--add", "root=root-4.pub.pem", "--remove", "root=root-1.pub.pem"];
    let answer = site.json(&[&rotate[..], &["--key", "root-2.key.pem", "--key", "root-4.key.pem"]].concat());
    assert_eq!(
        (&answer["result"], &answer["missing"][0]["role"]),
        (&"pending".into(), &"root (its keys before)".into())
    );
    let answer = site.json(&[&["repo", "sign", "repo", "--key", "root-3.key.pem"], &ONLINE[..]].concat());
    assert_eq!(answer["published"], serde_json::json!(["2.root.json", "timestamp.json"]));

    site.ok(&["keygen", "--out", "timestamp-2"]);
    let rotate = [
        "repo",
        "rotate-root",
        "repo",
        "--add",
        "timestamp=timestamp-2.pub.pem",
        "--remove",
        "timestamp=timestamp.pub.pem",
    ];
    let keys = [
        "--key",
        "root-2.key.pem",
        "--key",
        "root-4.key.pem",
        "--key",
        "snapshot.key.pem",
        "--key",
        "timestamp-2.key.pem",
    ];
    assert_eq!(site.json(&[&rotate[..], &keys].concat())["result"], "published");
    let answer = site.json(&[
        "repo",
        "refresh",
        "repo",
        "--role",
        "revocation",
        "--key",
        "revocation.key.pem",
        "--key",
        "snapshot.key.pem",
        "--key",
        "timestamp-2.key.pem",
    ]);
    assert!(answer["published"].as_array().unwrap().contains(&"2.revocation.json".into()), "{answer}");
    assert_eq!(site.json(&["repo", "show", "repo"])["roles"][0]["version"], 3);
    site.fails(1, "a key holds one role", &["repo", "rotate-root", "repo", "--add", "root=snapshot.pub.pem"]);
    site.fails(2, "is none of root's", &["repo", "rotate-root", "repo", "--remove", "root=snapshot.pub.pem"]);
}

#[test]
fn a_copy_on_a_medium_is_taken_forward_and_never_back() {
    let site = Site::published();
    let root = "repo/metadata/1.root.json";
    site.ok(&["repo", "export", "repo", "--out", "old.viw"]);
    site.fails(3, "is no repository", &["repo", "import", "copy", "--from", "old.viw"]);
    site.ok(&["repo", "import", "copy", "--from", "old.viw", "--root", root]);
    let keys = ["--key", "release.key.pem", "--key", "security.key.pem"];
    site.ok(&[&["repo", "add", "repo", "out/sample.wasm"], &keys[..], &ONLINE].concat());
    site.ok(&["repo", "export", "repo", "--out", "new.viw"]);
    assert!(site.ok(&["repo", "import", "copy", "--from", "new.viw"]).contains("imported timestamp 2"));
    assert!(site.ok(&["repo", "show", "copy"]).contains("target  sample-1.2.0.wasm"));
    let check = ["repo", "check", "copy", "--root", root, "--state", "known.json"];
    assert!(site.ok(&check).starts_with("CURRENT  root 1, timestamp 2"));
    let answer = site.run(&[&check[..], &["--at", "2999-01-01T00:00:00Z", "--output", "json"]].concat());
    let told: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!((answer.status.code(), &told["code"]), (Some(4), &"E_TUF_EXPIRED".into()));
    site.ok(&["repo", "import", "older", "--from", "old.viw", "--root", root]);
    let back = site.run(&["repo", "check", "older", "--root", root, "--state", "known.json"]);
    assert!(String::from_utf8_lossy(&back.stdout).starts_with("REFUSED  E_TUF_ROLLBACK"));
    site.fails(1, "timestamp goes back from 2 to 1", &["repo", "import", "copy", "--from", "old.viw"]);

    let good = std::fs::read(site.path("new.viw")).unwrap();
    for at in [0, 30, good.len() / 2, good.len() - 2] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(site.path("bad.viw"), &bad).unwrap();
        assert_eq!(
            site.run(&["repo", "import", "other", "--from", "bad.viw", "--root", root]).status.code(),
            Some(1),
            "byte {at}"
        );
    }
    for (from, to) in [
        ("metadata/timestamp.json", "metadata/../timestamp.jso"),
        ("metadata/timestamp.json", "metadato/timestamp.json"),
    ] {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let bad = [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat();
        std::fs::write(site.path("bad.viw"), bad).unwrap();
        site.fails(1, "is no export", &["repo", "import", "other", "--from", "bad.viw", "--root", root]);
    }
    assert_eq!(site.files("other/metadata"), [""; 0]);
}

#[test]
fn faults_have_the_exit_code_of_their_kind() {
    let site = Site::published();
    site.fails(2, "has a repository already", &INIT);
    site.fails(3, "is no repository", &["repo", "show", "none"]);
    site.fails(2, "role timestamp needs keys", &[&["repo", "init", "fresh"], &INIT[3..13]].concat());
    site.fails(2, "wanted ROLE=VALUE", &["repo", "rotate-root", "repo", "--threshold", "nobody=1"]);
    site.fails(2, "is no number", &["repo", "rotate-root", "repo", "--threshold", "root=0"]);
    let late = std::fs::read_to_string(site.path("repo/repository.toml")).unwrap();
    assert!(late.contains("timestamp = 30"), "{late}");
    for command in [
        "init",
        "add",
        "add-program",
        "revoke",
        "rotate-root",
        "refresh",
        "sign",
        "timestamp",
        "show",
        "check",
        "export",
        "import",
    ] {
        let help = site.ok(&["repo", command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("viworks-sign repo {command}")), "{help}");
    }
}

#[test]
fn a_command_that_was_cut_off_leaves_the_old_version() {
    let site = Site::published();
    let before = std::fs::read(site.path("repo/metadata/timestamp.json")).unwrap();
    // Everything but the timestamp and the drafts' removal was written when the power went.
    let keys = ["--key", "release.key.pem", "--key", "security.key.pem"];
    site.ok(&[&["repo", "add", "repo", "out/sample.wasm"], &keys[..], &ONLINE].concat());
    std::fs::write(site.path("repo/metadata/timestamp.json"), &before).unwrap();
    std::fs::write(site.path("repo/metadata/2.snapshot.json.77.tmp"), b"half").unwrap();
    assert!(Path::new(&site.path("repo/metadata/2.snapshot.json")).exists());
    assert!(site.ok(&["repo", "show", "repo"]).contains("a client says  OK"));
    assert_eq!(site.json(&[&["repo", "timestamp", "repo"], &ONLINE[..]].concat())["result"], "published");
    assert!(site.ok(&["repo", "show", "repo"]).contains("target  sample-1.2.0.wasm"));
}
