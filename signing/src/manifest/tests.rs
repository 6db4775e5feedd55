//! What `plugin.toml` may say, and that every fault is told at once.

use super::*;

const GOOD: &str = r#"
id = "accounts"
version = "1.0.0"
sequence = 1
[verbs.add_user]
effect = "change"
"#;

/// `testdata/sample/plugin.toml`
pub(crate) fn sample_manifest() -> Manifest {
    let text = std::fs::read_to_string(format!("{}/sample/plugin.toml", crate::fixture::TESTDATA)).unwrap();
    Manifest::parse(&text).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    match Manifest::parse(text) {
        Err(Error::Faults(faults)) => faults.0.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
        Ok(manifest) => panic!("accepted: {manifest:?}"),
    }
}

#[test]
fn defaults_are_filled_in() {
    let manifest = Manifest::parse(GOOD).unwrap();
    assert_eq!((manifest.epoch, manifest.sequence, manifest.host_api.as_str()), (0, 1, "1.0"));
    assert_eq!(manifest.verbs["add_user"].timeout_secs, 30);
    assert_eq!(manifest.limits, Limits::default());
    assert_eq!(manifest.not_before, None);
    assert!(manifest.capabilities.names().is_empty());
}

#[test]
fn the_sample_is_read_whole() {
    let manifest = sample_manifest();
    assert_eq!(manifest.capabilities.names(), ["accounts"]);
    assert_eq!(manifest.limits.memory_mib, 8);
    assert_eq!(manifest.verbs["add_user"].effect, EffectClass::Change);
    assert_eq!(manifest.verbs["add_user"].args["name"]["examples"], serde_json::json!(["deploy"]));
}

#[test]
fn every_fault_is_told_at_once_with_key_value_and_choices() {
    let text = r#"
        id = "Accounts"
        version = "1.4.2+a"
        sequence = 0
        host_api = "1"
        not_before = "tomorrow"
        colour = "red"
        [verbs.add-user]
        effect = "chnge"
        timeout_secs = 0
        args = { name = "x", uid = { minimum = 0.5 } }
        [verbs.other]
        [capabilities.accounts]
        grups = ["docker"]
        groups = ["a**"]
        [capabilities.vpn]
        providers = ["ipsec", "openvpn"]
        [capabilities.teapots]
        [limits]
        memory_mib = -1
        memory = 3
    "#;
    let found = faults(text);
    let wanted = [
        "id: found \"Accounts\"; wanted lower-case words",
        "version: found \"1.4.2+a\"; wanted a version MAJOR.MINOR.PATCH without build metadata",
        "sequence: found 0; wanted a whole number from 1",
        "host_api: found \"1\"; wanted MAJOR.MINOR",
        "not_before: found \"tomorrow\"; wanted an RFC 3339 time",
        "colour: found an unknown key; wanted id, version,",
        "verbs.add-user: found add-user; wanted a verb's name in snake_case",
        "verbs.add-user.effect: found \"chnge\"; wanted \"read\", \"change\" or \"irreversible\"",
        "verbs.add-user.timeout_secs: found 0; wanted a whole number from 1 to 3600",
        "verbs.add-user.args.name: found \"x\"; wanted a table",
        "verbs.add-user.args.uid.minimum: found 0.5; wanted",
        "verbs.other.effect: found nothing; wanted \"read\"",
        "capabilities.accounts.grups: found an unknown key; wanted one of `groups`, `uids`",
        "capabilities.accounts.groups: found [\"a**\"]; wanted pattern \"a**\" has '*'",
        "capabilities.vpn.providers: found \"ipsec\"; wanted wireguard or openvpn",
        "capabilities.teapots: found an unknown capability; wanted accounts, vpn,",
        "limits.memory_mib: found -1; wanted a whole number from 1",
        "limits.memory: found an unknown key; wanted memory_mib, cpu_ms,",
    ];
    for fault in wanted {
        assert!(found.iter().any(|line| line.starts_with(fault)), "{fault}\nin\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), wanted.len(), "{}", found.join("\n"));
}

#[test]
fn what_must_be_there_is_asked_for() {
    let found = faults("");
    for key in ["id", "version", "sequence", "verbs"] {
        assert!(found.iter().any(|line| line.starts_with(&format!("{key}: found nothing"))), "{key}");
    }
    assert!(matches!(Manifest::parse("id = "), Err(Error::Syntax(_))));
    assert!(faults(&format!("verbs = 3\n{}", GOOD.replace("[verbs.add_user]\neffect = \"change\"", ""))).len() == 1);
}
