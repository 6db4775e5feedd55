//! What a policy may say, and that every fault is told at once.

use super::*;
use crate::keys::SecretKey;
use std::path::Path;

fn no_files(_: &Path) -> Result<String, String> {
    Err("can't be read".into())
}

fn parse(text: &str, known: &[PublicKey]) -> Result<Policy, Error> {
    Policy::parse(text, &Sources { known, read: &no_files })
}

fn faults(text: &str, known: &[PublicKey]) -> Vec<String> {
    match parse(text, known) {
        Err(Error::Faults(faults)) => faults.0.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn key() -> PublicKey {
    SecretKey::generate().public()
}

fn pem(key: &PublicKey) -> String {
    format!("'''{}'''", key.to_pem().unwrap())
}

/// Each line once, whatever their order.
fn told(found: &[String], wanted: &[&str]) {
    for fault in wanted {
        assert!(found.iter().any(|line| line.starts_with(fault)), "{fault}\nin\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), wanted.len(), "{}", found.join("\n"));
}

#[test]
fn an_empty_policy_takes_everything_and_allows_nothing() {
    let policy = parse("", &[]).unwrap();
    assert_eq!(policy, Policy::default());
    assert!(policy.scopes.names().is_empty() && policy.plugins.match_any("any"));
    assert_eq!((policy.approvals_of("touch"), policy.limits), (0, CEILINGS));
    let known = key();
    assert_eq!(policy.trust(&[known]), Trust::any_of(&[known]));
}

#[test]
fn a_whole_policy_is_read() {
    let (one, two, reviewer, operator) = (key(), key(), key(), key());
    let text = format!(
        r#"
        plugins = ["accounts", "vpn-*"]
        [signers]
        release = {{ threshold = 2, keys = ["sha256:{}", "file:two.pub.pem"] }}
        security = {{ threshold = 0, keys = [{}] }}
        [capabilities.accounts]
        groups = ["docker"]
        uids = {{ min = 20000, max = 20999 }}
        [capabilities.vpn]
        [limits]
        memory_mib = 64
        [approvals]
        verbs = {{ delete_user = 1 }}
        keys = [{}]
        "#,
        one.id(),
        pem(&reviewer),
        pem(&operator)
    );
    let read =
        |path: &Path| if path == Path::new("two.pub.pem") { Ok(two.to_pem().unwrap()) } else { Err(String::new()) };
    let policy = Policy::parse(&text, &Sources { known: &[one], read: &read }).unwrap();
    let trust = policy.trust(&[]);
    assert_eq!((trust.release().threshold(), trust.release().keys()), (2, [one, two].as_slice()));
    assert_eq!((trust.security().threshold(), trust.security().keys()), (0, [reviewer].as_slice()));
    assert_eq!(policy.scopes.names(), ["accounts", "vpn"]);
    assert_eq!((policy.limits.memory_mib, policy.limits.cpu_ms), (64, CEILINGS.cpu_ms));
    assert_eq!((policy.approvals_of("delete_user"), policy.approvals.keys.as_slice()), (1, [operator].as_slice()));
    assert!(policy.plugins.match_any("vpn-2") && !policy.plugins.match_any("containers"));
}

#[test]
fn security_keys_without_a_threshold_are_needed_and_known_keys_release() {
    let (known, reviewer) = (key(), key());
    let policy = parse(&format!("[signers]\nsecurity = {{ keys = [{}] }}", pem(&reviewer)), &[known]).unwrap();
    let trust = policy.trust(&[]);
    assert_eq!((trust.release().keys(), trust.security().threshold()), ([known].as_slice(), 1));
}

#[test]
fn every_fault_is_told_at_once_with_key_value_and_choices() {
    let (one, two) = (key(), key());
    // The identity: a point of small order, for which anything can be signed.
    let weak = "MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let text = format!(
        r#"
        plugin = ["accounts"]
        plugins = ["vpn-*", "Accounts", "a b", 3]
        [signers]
        release = {{ threshold = 3, keys = [{one}, {one}, "sha256:00", "file:none.pem", "key"] }}
        security = {{ threshold = 1, keys = [{one}, '''-----BEGIN PUBLIC KEY-----
{weak}
-----END PUBLIC KEY-----'''], roles = 1 }}
        [capabilities.accounts]
        grups = ["docker"]
        uids = {{ min = 0, max = 20999 }}
        shells = ["bash"]
        [capabilities.teapots]
        [capabilities.scripts]
        pins = {{ "a.sh" = "abc" }}
        [limits]
        memory_mib = 0
        output_kib = 2048
        [approvals]
        verbs = {{ delete-user = 1, touch = 0, add_user = 2 }}
        keys = [{two}]
        "#,
        one = pem(&one),
        two = pem(&two)
    );
    let known = key();
    told(
        &faults(&text, &[known]),
        &[
            "plugin: found an unknown key; wanted signers, plugins, capabilities, limits or approvals",
            "plugins[1]: found \"Accounts\"; wanted a plugin's id",
            "plugins[2]: found \"a b\"; wanted a plugin's id",
            "plugins[3]: found 3; wanted a plugin's id",
            &format!(
                "signers.release.keys[1]: found key {}; wanted another key: it is one of release already",
                one.id()
            ),
            &format!(
                "signers.release.keys[2]: found \"sha256:00\"; wanted the id of a known key: sha256:{}",
                known.id()
            ),
            "signers.release.keys[3]: found \"file:none.pem\"; wanted \"sha256:KEYID\"",
            "signers.release.keys[4]: found \"key\"; wanted \"sha256:KEYID\"",
            "signers.release.threshold: found 3; wanted at most 1, its number of usable keys",
            &format!("signers.security.keys[0]: found key {}; wanted another key: it is one of release", one.id()),
            &format!("signers.security.keys[1]: found \"{weak}\"; wanted \"sha256:KEYID\""),
            "signers.security.roles: found an unknown key; wanted threshold or keys",
            "signers.security.threshold: found 1; wanted at most 0",
            "capabilities.accounts.grups: found an unknown key; wanted one of `groups`, `uids`",
            "capabilities.teapots: found an unknown capability; wanted accounts, vpn,",
            "capabilities.scripts.pins.a.sh: found \"abc\"; wanted a SHA-256 in lowercase hex",
            "limits.memory_mib: found 0; wanted a whole number from 1 to 4096",
            "limits.output_kib: found 2048; wanted a whole number from 1 to 1024",
            "approvals.verbs.delete-user: found a number; wanted a verb's name in snake_case",
            "approvals.verbs.touch: found 0; wanted a whole number from 1",
            "approvals.keys: found 1 usable keys; wanted at least 2",
        ],
    );
    told(
        &faults("[capabilities.accounts]\nuids = { min = 0, max = 20999 }\nshells = [\"bash\"]", &[]),
        &[
            "capabilities.accounts.uids: found { min = 0, max = 20999 }; wanted min from 1000 up",
            "capabilities.accounts.shells: found \"bash\"; wanted absolute paths",
        ],
    );
}

#[test]
fn a_weak_key_is_called_weak_and_no_known_key_can_be_reviewer_too() {
    let weak = "[signers]\nrelease = { keys = ['''-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END PUBLIC KEY-----'''] }";
    assert!(faults(weak, &[])[0].contains("this is a weak public key"));
    let known = key();
    let both = format!("[signers]\nsecurity = {{ keys = [{}] }}", pem(&known));
    told(&faults(&both, &[known]), &["signers.security.keys: found key"]);
    told(&faults("[signers]", &[]), &["signers.release: found nothing; wanted { threshold = 1"]);
}

#[test]
fn what_is_no_toml_says_where() {
    assert!(matches!(parse("[signers", &[]), Err(Error::Syntax(_))));
}

#[test]
fn only_the_named_plugins_are_taken() {
    let mut release =
        crate::publish::build_release(&crate::fixture::sample(), &crate::manifest::tests::sample_manifest())
            .unwrap()
            .predicate;
    let policy = parse("plugins = [\"sam*\"]", &[]).unwrap();
    assert_eq!(policy.takes(&release), Ok(()));
    release.plugin = "other".into();
    let refused = policy.takes(&release).unwrap_err();
    assert_eq!((refused.code(), refused.wanted.as_str()), ("E_POLICY_PLUGIN", "sam*"));
}
