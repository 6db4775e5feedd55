//! Reviews, further signatures, provenance and policies, as users of `viworks-sign` meet
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where what it needs is missing")]

mod site;

use serde_json::Value;
use site::Site;

/// A signed bundle, a security key, and a policy that wants both.
fn reviewed_site() -> Site {
    let site = Site::new();
    site.ok(&["keygen", "--out", "security"]);
    site.sign();
    site.write("policy.toml", POLICY.as_bytes());
    site
}

const POLICY: &str = "
plugins = [\"sam*\"]
[signers]
release = { threshold = 1, keys = [\"file:release.pub.pem\"] }
security = { threshold = 1, keys = [\"file:security.pub.pem\"] }
[capabilities.accounts]
groups = [\"docker\"]
uids = { min = 1500, max = 2500 }
";

const REVIEW: [&str; 8] =
    ["review", "sample.wasm", "--plugin", "sample", "--release-key", "release.pub.pem", "--key", "security.key.pem"];

fn by_policy(site: &Site) -> (Option<i32>, Value) {
    let output =
        site.run(&["verify", "sample.wasm", "--policy", "policy.toml", "--plugin", "sample", "--output", "json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn a_policy_asks_for_a_review_and_is_content_with_one_of_this_release() {
    let site = reviewed_site();
    let (code, answer) = by_policy(&site);
    assert_eq!((code, &answer["code"]), (Some(1), &"E_REVIEW_MISSING".into()));
    assert_eq!(answer["digest"].as_str().map(str::len), Some(64), "of the bytes that were refused");
    let said = site.ok(&REVIEW);
    assert!(said.contains("verbs         add_user, put_thing, touch"), "{said}");
    let (code, answer) = by_policy(&site);
    assert_eq!((code, answer["reviewers"].as_array().map(Vec::len)), (Some(0), Some(1)));

    // The review goes with the release, not with the name: a new release needs a new one.
    let review = String::from_utf8(site.read("sample.wasm.intoto.jsonl")).unwrap().lines().nth(1).unwrap().to_owned();
    let toml = String::from_utf8(site.read("plugin.toml")).unwrap().replace("sequence = 3", "sequence = 4");
    site.write("plugin.toml", toml.as_bytes());
    site.sign();
    let release = String::from_utf8(site.read("sample.wasm.intoto.jsonl")).unwrap();
    site.write("sample.wasm.intoto.jsonl", format!("{release}{review}\n").as_bytes());
    assert_eq!(by_policy(&site).1["code"], "E_REVIEW_MISMATCH");
}

#[test]
fn a_second_review_by_the_same_key_replaces_the_first() {
    let site = reviewed_site();
    site.ok(&REVIEW);
    site.write("allow.toml", b"verbs = [\"touch\"]\n[limits]\ncpu_ms = 9\n");
    let said = site.ok(&[&REVIEW[..], &["--allow", "allow.toml", "--notes", "looks fine"]].concat());
    assert!(said.contains("verbs         touch") && said.contains("capabilities  none"), "{said}");
    let lines = String::from_utf8(site.read("sample.wasm.intoto.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    site.write("allow.toml", b"verbs = [\"tuch\"]\n");
    site.fails(1, "wanted add_user, put_thing or touch", &[&REVIEW[..], &["--allow", "allow.toml"]].concat());
    let text = site.ok(&["inspect", "sample.wasm"]);
    for words in ["review of this release, ", "verbs that may run: touch", "capabilities at most: none", "looks fine"] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn what_does_not_verify_is_not_reviewed_and_a_releaser_is_no_reviewer() {
    let site = reviewed_site();
    let with = |key: &str, release: &str| {
        let args = ["review", "sample.wasm", "--plugin", "sample", "--release-key", release, "--key", key];
        args.map(str::to_owned).to_vec()
    };
    let fails = |code, words: &str, args: Vec<String>| {
        site.fails(code, words, &args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    fails(1, "refused (E_SIGNATURE)", with("security.key.pem", "security.pub.pem"));
    fails(1, "holds both the release and the security role", with("release.key.pem", "release.pub.pem"));
    let before = site.read("sample.wasm.intoto.jsonl");
    assert_eq!(site.read("sample.wasm.intoto.jsonl"), before);
}

#[test]
fn a_threshold_is_met_by_keys_at_different_places() {
    let site = Site::new();
    site.ok(&["keygen", "--out", "second"]);
    site.sign();
    let two = "[signers]\nrelease = { threshold = 2, keys = [\"file:release.pub.pem\", \"file:second.pub.pem\"] }";
    site.write("policy.toml", two.as_bytes());
    assert_eq!(by_policy(&site).1["code"], "E_THRESHOLD");
    let cosign =
        ["cosign", "sample.wasm", "--plugin", "sample", "--release-key", "release.pub.pem", "--key", "second.key.pem"];
    site.ok(&cosign);
    let once = site.read("sample.wasm.intoto.jsonl");
    let (code, answer) = by_policy(&site);
    assert_eq!((code, answer["keyids"].as_array().map(Vec::len)), (Some(0), Some(2)));
    site.ok(&cosign);
    assert_eq!(site.read("sample.wasm.intoto.jsonl"), once, "signing again adds nothing");

    // A review is of the statement, so that a further signature leaves it valid.
    let site = reviewed_site();
    site.ok(&["keygen", "--out", "second"]);
    site.ok(&REVIEW);
    site.ok(&cosign);
    assert_eq!(by_policy(&site).0, Some(0));
}

#[test]
fn provenance_is_a_further_line_and_never_enough() {
    let site = Site::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let source = format!("git+https://git.example.com/plugins@{commit}");
    let sign = ["sign", "built.wasm", "--key", "release.key.pem"];
    let built = ["--builder", "https://ci.example.com/runner", "--source", &source, "--material", "plugin.toml"];
    site.ok(&[&sign[..], &built].concat());
    let (code, answer) = site.verify(&["--plugin", "sample"]);
    assert_eq!((code, &answer["builders"][0]), (Some(0), &"https://ci.example.com/runner".into()));
    let text = site.ok(&["inspect", "sample.wasm"]);
    assert!(text.contains("provenance of these bytes") && text.contains(&format!("gitCommit {commit}")), "{text}");
    let lines = String::from_utf8(site.read("sample.wasm.intoto.jsonl")).unwrap();
    site.write("sample.wasm.intoto.jsonl", lines.lines().nth(1).unwrap().as_bytes());
    assert_eq!(site.verify(&["--plugin", "sample"]).1["code"], "E_NO_RELEASE");

    let predicate = r#"{"buildDefinition":{"buildType":"https://example.com/t","externalParameters":{}},
        "runDetails":{"builder":{"id":"https://ci.example.com"}}}"#;
    site.write("built.json", predicate.as_bytes());
    site.ok(&[&sign[..], &["--provenance", "built.json"]].concat());
    assert_eq!(site.verify(&["--plugin", "sample"]).1["builders"][0], "https://ci.example.com");
    site.write("built.json", predicate.replace("https://ci.example.com", "ci").as_bytes());
    site.fails(1, "lacks its builder.id", &[&sign[..], &["--provenance", "built.json"]].concat());
    site.write("built.json", b"{}");
    site.fails(1, "built.json is no provenance", &[&sign[..], &["--provenance", "built.json"]].concat());
    site.fails(2, "wanted URI@COMMIT", &[&sign[..], &["--builder", "https://x.example", "--source", "x"]].concat());
}

#[test]
fn a_policy_is_checked_and_explained() {
    let site = reviewed_site();
    assert_eq!(site.ok(&["policy", "check", "policy.toml"]), "the policy is sound\n");
    site.write("bad.toml", b"[capabilities.teapots]\n[limits]\nmemory_mib = 0\n");
    let output = site.run(&["policy", "check", "bad.toml", "--output", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), answer["faults"].as_array().map(Vec::len)), (Some(1), Some(2)));
    assert_eq!(answer["faults"][0]["key"], "capabilities.teapots");
    site.fails(3, "can't read none.toml", &["policy", "check", "none.toml"]);

    let explain = ["policy", "explain", "policy.toml", "sample.wasm", "--plugin", "sample"];
    site.fails(1, "E_REVIEW_MISSING", &explain);
    site.ok(&REVIEW);
    let text = site.ok(&explain);
    for words in ["sample 1.2.0", "accounts: granted", "request", "1500 to 1999", "docker", "limits of one invocation"]
    {
        assert!(text.contains(words), "{words} in {text}");
    }
    let json: Value = serde_json::from_str(&site.ok(&[&explain[..], &["--output", "json"]].concat())).unwrap();
    assert_eq!((&json["capabilities"][0]["granted"], &json["plugin"]), (&true.into(), &"sample".into()));
    site.write("policy.toml", POLICY.replace("sam*", "other").as_bytes());
    assert_eq!(by_policy(&site).1["code"], "E_POLICY_PLUGIN");
}

#[test]
fn help_has_examples_for_every_command() {
    let site = Site::new();
    for command in ["public", "cosign", "review", "policy"] {
        let help = site.ok(&[command, "--help"]);
        assert!(help.contains("Examples:") && help.contains(&format!("viworks-sign {command}")), "{help}");
    }
}
