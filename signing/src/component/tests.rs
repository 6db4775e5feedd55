//! Outlines of components, and of what only looks like one.

use super::*;
use crate::fixture::sample;

#[test]
fn what_is_not_a_component_is_told_apart() {
    let bytes = sample();
    assert!(preamble(&bytes).is_ok());
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        preamble(&bytes)
    };
    assert!(matches!(with(4, &[1, 0, 0, 0]), Err(Error::CoreModule)));
    assert!(matches!(with(0, b"\x7fELF"), Err(Error::Precompiled)));
    assert!(matches!(with(4, &[0x0c]), Err(Error::NotWasm)));
    assert!(matches!(with(6, &[0]), Err(Error::NotWasm)));
    assert!(matches!(preamble(b""), Err(Error::NotWasm)));
    assert!(matches!(preamble(&vec![0; MAX_COMPONENT + 1]), Err(Error::TooLarge { .. })));
}

#[test]
fn imports_of_nested_components_and_modules_do_not_count() {
    let bytes = sample();
    assert_eq!(outline(&bytes).unwrap().imports.len(), 3, "and not those of the core module inside");
    let mut outer = wasm_encoder::Component::new();
    outer.section(&wasm_encoder::RawSection { id: 4, data: &bytes });
    assert!(outline(&outer.finish()).unwrap().imports.is_empty());
}

#[test]
fn cut_and_flipped_bytes_never_panic() {
    let bytes = sample();
    for end in 0..bytes.len() {
        let cut = outline(&bytes[..end]).map(|outline| outline.imports);
        // A cut between two sections is still a component, of fewer sections.
        assert!(cut.is_err() || cut.is_ok_and(|imports| imports.len() <= 3));
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        let _ = outline(&bytes);
    }
}

#[test]
fn two_docs_sections_are_refused() {
    let mut bytes = sample();
    for _ in 0..2 {
        let section = wasm_encoder::CustomSection { name: DOCS_SECTION.into(), data: b"{}".into() };
        wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
    }
    assert!(matches!(outline(&bytes), Err(Error::DocsTwice)));
}
