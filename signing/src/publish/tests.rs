//! Manifests that fit their component, and those that don't.

use super::*;
use crate::fixture::sample;
use crate::keys::SecretKey;
use crate::manifest::tests::sample_manifest;

fn faults(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = sample_manifest();
    change(&mut manifest);
    match build_release(&sample(), &manifest) {
        Err(Error::Manifest(faults)) => faults.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_statement_says_what_the_component_and_the_manifest_say() {
    let bytes = sample();
    let statement = build_release(&bytes, &sample_manifest()).unwrap();
    let release = &statement.predicate;
    assert_eq!((release.plugin.as_str(), release.epoch, release.sequence), ("sample", 0, 3));
    assert_eq!(statement.subject[0].name, "sample.wasm");
    assert_eq!(statement.subject[0].digest.sha256, hex::encode(Sha256::digest(&bytes)));
    assert_eq!(release.artifact.size as usize, bytes.len());
    assert_eq!(release.verbs["add_user"].args["properties"]["name"]["pattern"], "^[a-z_][a-z0-9_-]{0,31}$");
    assert_eq!(release.verbs["add_user"].args["properties"]["uid"]["minimum"], 1000);
    assert_eq!(release.not_before, "2024-01-01T00:00:00Z");
    let thing = &release.verbs["put_thing"].args["properties"]["thing"];
    assert_eq!(thing["properties"]["display-name"]["maxLength"], 64);
}

#[test]
fn verbs_of_component_and_manifest_must_be_the_same() {
    let text = faults(|manifest| {
        let verb = manifest.verbs.remove("touch").unwrap();
        manifest.verbs.insert("tuch".to_owned(), verb);
    });
    assert!(
        text.contains(
            "verbs.tuch: found a verb that the component does not export; wanted add_user, put_thing or touch"
        )
    );
    assert!(text.contains("verbs.touch: found nothing; wanted"));
}

#[test]
fn scopes_are_asked_for_exactly_for_what_is_imported() {
    let text = faults(|manifest| {
        manifest.capabilities.accounts = None;
        manifest.capabilities.state = Some(crate::grant::StateScope::default());
    });
    assert!(text.contains("capabilities.accounts: found nothing; wanted [capabilities.accounts], because"), "{text}");
    assert!(text.contains("capabilities.state: found a scope; wanted no scope"), "{text}");
}

#[test]
fn the_lowest_host_api_has_what_is_imported() {
    let text = faults(|manifest| manifest.host_api = "2.0".to_owned());
    let wanted =
        "host_api: found \"2.0\"; wanted \"1.0\", because the component imports viworks:gateway/accounts@1.0.0";
    assert!(text.starts_with(wanted), "{text}");
    let mut manifest = sample_manifest();
    manifest.host_api = "1.3".to_owned();
    assert!(build_release(&sample(), &manifest).is_ok(), "a higher minor has all of the lower");
}

#[test]
fn constraints_that_do_not_fit_are_told_with_their_verb() {
    let text = faults(|manifest| {
        let verb = manifest.verbs.get_mut("add_user").unwrap();
        verb.args.insert("nme".to_owned(), serde_json::Map::new());
    });
    assert!(text.starts_with("verbs.add_user.args.nme: found no such argument"), "{text}");
}

#[test]
fn unknown_imports_are_refused() {
    let wit = "package example:t@1.0.0;
        interface verbs { use viworks:gateway/types@1.0.0.{failure}; touch: func() -> result<_, failure>; }
        interface door { open: func(); }
        world plugin { import door; export verbs; }";
    let mut manifest = sample_manifest();
    manifest.verbs.retain(|name, _| name == "touch");
    manifest.capabilities = crate::grant::Scopes::default();
    let refused = build_release(&crate::fixture::component(wit), &manifest);
    let Err(Error::Manifest(faults)) = refused else { panic!("{refused:?}") };
    assert!(faults.to_string().contains("import example:t/door@1.0.0: found no interface of a gateway"), "{faults}");
}

#[test]
fn signing_is_deterministic_and_what_could_not_be_read_is_not_signed() {
    let key = SecretKey::generate();
    let mut statement = build_release(&sample(), &sample_manifest()).unwrap();
    let line = sign_release(&statement, &[&key]).unwrap();
    assert_eq!(line, sign_release(&statement, &[&key]).unwrap());
    assert_eq!(line.lines().count(), 1);
    assert!(line.ends_with('\n') && line.contains(&format!("\"keyid\":\"{}\"", key.public().id())));
    assert!(matches!(sign_release(&statement, &[]), Err(Error::Keys { count: 0 })));
    statement.predicate.description = "x".repeat(MAX_STATEMENTS);
    assert!(matches!(sign_release(&statement, &[&key]), Err(Error::Unreadable(_))));
    statement.predicate.description = "x".repeat(MAX_STATEMENTS * 4 / 5);
    assert!(matches!(sign_release(&statement, &[&key]), Err(Error::Unreadable(_))), "base64 counts too");
    statement.predicate.description = String::new();
    statement.predicate.verbs.values_mut().for_each(|verb| verb.result = serde_json::json!({ "maximum": 0.5 }));
    assert!(matches!(sign_release(&statement, &[&key]), Err(Error::Unreadable(strict_json::Error::Float { .. }))));
}
