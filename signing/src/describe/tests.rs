//! What components of every kind are described as, and which are refused.

use super::*;
use crate::fixture::{GATEWAY_WIT, TESTDATA, component, sample};
use crate::pack::pack;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sample/schemas.json");

/// Set `UPDATE_GOLDEN=1` to write the file anew, then read the difference.
#[test]
fn schemas_are_those_of_the_golden_file() {
    let packed = pack(&sample(), &[format!("{TESTDATA}/sample").as_str(), GATEWAY_WIT]).unwrap();
    let description = describe(&packed).unwrap();
    let verbs: Map<String, Value> = description
        .verbs
        .into_iter()
        .map(|(name, verb)| {
            let types = serde_json::json!({
                "function": verb.function, "docs": verb.docs, "args": verb.args, "result": verb.result,
            });
            (name, types)
        })
        .collect();
    let real = format!("{:#}\n", Value::Object(verbs));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &real).unwrap();
    }
    assert_eq!(real, std::fs::read_to_string(GOLDEN).unwrap());
    assert_eq!(description.world, "example:sample/plugin@1.2.0");
    let imports = ["viworks:gateway/accounts@1.0.0", "viworks:gateway/log@1.0.0", "viworks:gateway/types@1.0.0"];
    assert_eq!(description.imports, imports);
}

#[test]
fn without_docs_the_types_are_the_same_and_the_world_is_the_decoders() {
    let description = describe(&sample()).unwrap();
    assert_eq!(description.world, "root:component/root");
    assert_eq!(description.verbs["add_user"].docs, "");
    assert_eq!(description.verbs["add_user"].args["required"], serde_json::json!(["name", "ssh_keys"]));
}

/// A component whose interface `verbs` has these items.
fn verbs(items: &str) -> Result<Description, Error> {
    describe(&component(&format!(
        "package example:t@1.0.0;
         interface verbs {{ use viworks:gateway/types@1.0.0.{{failure}}; {items} }}
         world plugin {{ export verbs; }}"
    )))
}

#[test]
fn types_that_verbs_cannot_have_are_refused_with_their_place_and_the_mend() {
    let refused = [
        ("v: func(n: u64) -> result<_, failure>;", "v(n): a 64-bit integer can't be used in a verb; use u32,"),
        ("v: func() -> result<list<s64>, failure>;", "v -> result: a 64-bit integer"),
        ("type id = u64; record r { id: id } v: func(r: r) -> result<_, failure>;", "v(r).id: a 64-bit integer"),
        ("v: func(o: option<option<string>>) -> result<_, failure>;", "v(o): option<option<…>>"),
        ("type o = option<u8>; v: func(o: option<o>) -> result<_, failure>;", "v(o): option<option<…>>"),
        ("resource r; v: func(r: own<r>) -> result<_, failure>;", "v(r): a resource"),
        ("resource r; v: func() -> result<own<r>, failure>;", "v -> result: a resource"),
        ("v: func(u: string) -> string;", "v: a verb returns result<T, failure>"),
        ("v: func(u: string);", "v: a verb returns result<T, failure>"),
        ("v: func() -> result<u32>;", "v: a verb returns result<T, failure>"),
        ("v: func() -> result<u32, string>;", "v: a verb returns result<T, failure>"),
        ("use viworks:gateway/types@1.0.0.{denial}; v: func() -> result<u32, denial>;", "v: a verb returns"),
        ("V: func() -> result<_, failure>;", "V: not a name of lower-case words"),
        ("v: func(URL: string) -> result<_, failure>;", "v(URL): not a name of lower-case words"),
        ("v: func(s: stream<u8>) -> result<_, failure>;", "v(s): a stream"),
        ("v: func() -> result<future<string>, failure>;", "v -> result: a future"),
        ("resource r { m: func(); } v: func() -> result<_, failure>;", "an async function or a resource's method"),
    ];
    for (items, wanted) in refused {
        let error = verbs(items).expect_err(items).to_string();
        assert!(error.contains(wanted), "{items}: {error}");
    }
}

#[test]
fn a_type_that_doubles_with_each_level_is_refused() {
    let mut items = "record r0 { a: u8, b: u8 }".to_owned();
    for i in 1..14 {
        items.push_str(&format!(" record r{i} {{ a: r{0}, b: r{0} }}", i - 1));
    }
    items.push_str(" v: func(r: r13) -> result<_, failure>;");
    assert!(matches!(verbs(&items), Err(Error::TooLarge { .. })));
}

#[test]
fn a_failure_of_another_package_is_not_the_gateways() {
    let other = component(
        "package example:t@1.0.0;
         interface types { variant failure { failed(string) } }
         interface verbs { use types.{failure}; v: func() -> result<_, failure>; }
         world plugin { export verbs; }",
    );
    assert!(matches!(describe(&other), Err(Error::Failure { at }) if at == "v"));
}

#[test]
fn exactly_one_verbs_interface_is_wanted() {
    let none = component("package example:t; interface other { f: func(); } world plugin { export other; }");
    assert!(matches!(describe(&none), Err(Error::NoVerbs(found)) if found == "example:t/other"));
    let two = component(
        "package example:t@1.0.0;
         package example:a@1.0.0 { interface verbs { f: func(); } }
         package example:b@1.0.0 { interface verbs { f: func(); } }
         world plugin { export example:a/verbs@1.0.0; export example:b/verbs@1.0.0; }",
    );
    assert!(matches!(describe(&two), Err(Error::ManyVerbs(_))));
    let empty = component("package example:t; interface verbs { type t = u8; } world plugin { export verbs; }");
    assert!(matches!(describe(&empty), Err(Error::EmptyVerbs(_) | Error::NoVerbs(_))));
}

#[test]
fn a_malformed_docs_section_is_refused() {
    for docs in [&b"{\"version\":2,\"docs\":{}}"[..], b"{", b"{\"version\":1,\"docs\":{},\"docs\":{}}", b"\x01{}"] {
        let mut bytes = sample();
        let section = wasm_encoder::CustomSection { name: crate::component::DOCS_SECTION.into(), data: docs.into() };
        wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
        assert!(matches!(describe(&bytes), Err(Error::Docs(_))));
    }
}
