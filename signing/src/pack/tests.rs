//! Packing is deterministic, repeatable, and only takes WIT that belongs to the component.

use super::*;
use crate::fixture::{GATEWAY_WIT, TESTDATA, component, sample};

fn wit() -> [String; 2] {
    [format!("{TESTDATA}/sample"), GATEWAY_WIT.to_owned()]
}

#[test]
fn packing_twice_or_in_another_order_gives_the_same_bytes() {
    let bytes = sample();
    let once = pack(&bytes, &wit()).unwrap();
    assert_eq!(once[..bytes.len()], bytes[..], "the component itself is not touched");
    assert_eq!(pack(&bytes, &wit()).unwrap(), once);
    assert_eq!(pack(&once, &wit()).unwrap(), once, "an older section is replaced");
    let [a, b] = wit();
    assert_eq!(pack(&bytes, &[b, a]).unwrap(), once);
    wasmparser::Validator::new().validate_all(&once).unwrap();
}

#[test]
fn an_older_section_is_replaced_wherever_it_is() {
    let mut bytes = sample();
    let plain = pack(&bytes, &wit()).unwrap();
    CustomSection { name: DOCS_SECTION.into(), data: b"old".into() }.append_to_component(&mut bytes);
    CustomSection { name: "other".into(), data: b"kept".into() }.append_to_component(&mut bytes);
    let packed = pack(&bytes, &wit()).unwrap();
    assert_eq!(crate::component::outline(&packed).unwrap().docs, crate::component::outline(&plain).unwrap().docs);
    assert!(packed.windows(4).any(|w| w == b"kept") && !packed.windows(3).any(|w| w == b"old"));
}

#[test]
fn only_what_the_verbs_use_is_packed() {
    let packed = pack(&sample(), &wit()).unwrap();
    let docs = String::from_utf8_lossy(crate::component::outline(&packed).unwrap().docs.unwrap()).into_owned();
    assert!(docs.contains("Add a user") && docs.contains("GECOS") && docs.contains("example:sample/plugin@1.2.0"));
    assert!(!docs.contains("quarantine"), "accounts' other types are not used");
}

#[test]
fn foreign_missing_and_broken_wit_is_refused() {
    let bytes = sample();
    assert!(matches!(pack(&bytes, &[GATEWAY_WIT]), Err(Error::Foreign(name)) if name == "example:sample/verbs@1.2.0"));
    assert!(matches!(pack(&bytes, &[format!("{TESTDATA}/sample")]), Err(Error::Wit { .. })), "its uses are missing");
    assert!(matches!(pack(&bytes, &["/nonexistent"]), Err(Error::Wit { .. })));
    let none = component("package example:t; interface other { f: func(); } world plugin { export other; }");
    assert!(matches!(pack(&none, &wit()), Err(Error::Describe(_))));
}
