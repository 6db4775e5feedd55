//! Every attack on a bundle is refused with its own code, and the docs name every code.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where what it needs is missing")]

mod attacks;
#[path = "../src/fixture.rs"]
mod fixture;

use attacks::{World, all, good};
use viworks_signing::grant::Scopes;
use viworks_signing::manifest::Manifest;
use viworks_signing::verify::CODES;

fn world() -> World {
    let toml = std::fs::read_to_string(format!("{}/sample/plugin.toml", fixture::TESTDATA)).unwrap();
    let manifest = Manifest::parse(&toml).unwrap();
    let other = fixture::component(
        "package example:t@1.0.0;
         interface verbs { use viworks:gateway/types@1.0.0.{failure}; touch: func() -> result<_, failure>; }
         world plugin { import viworks:gateway/log@1.0.0; export verbs; }",
    );
    let mut other_manifest = manifest.clone();
    other_manifest.id = "other".into();
    other_manifest.verbs.retain(|name, _| name == "touch");
    other_manifest.capabilities = Scopes::default();
    World::new((fixture::sample(), manifest), (other, other_manifest))
}

#[test]
fn the_good_bundle_passes() {
    let world = world();
    let verified = good(&world).unwrap();
    assert_eq!((verified.signers().len(), verified.reviews().len(), verified.provenance().len()), (2, 1, 1));
    assert!(verified.allows("touch") && !verified.allows("other"));
}

#[test]
fn every_attack_is_refused_with_its_code() {
    let world = world();
    let wrong: Vec<String> = all()
        .iter()
        .map(|attack| (attack, (attack.run)(&world)))
        .filter(|(attack, code)| code != attack.wanted)
        .map(|(attack, code)| format!("{}: wanted {}, got {code}", attack.name, attack.wanted))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_docs_name_every_code() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/release-engineers.md")).unwrap();
    let more = ["E_WEAK_KEY", "E_ROLLBACK", "E_SEQUENCE_REUSED", "E_VERSION_REUSED"];
    for code in CODES.iter().map(|(code, _)| *code).chain(more) {
        assert!(docs.contains(&format!("`{code}`")), "{code}");
    }
}
