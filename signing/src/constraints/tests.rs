//! Constraints that fit, and every way in which one does not.

use super::*;
use serde_json::json;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "uid": { "type": ["integer", "null"], "minimum": 0, "maximum": 65535 },
            "ratio": { "type": "number" },
            "groups": { "type": "array", "items": { "type": "string" } },
            "kind": { "type": ["string", "null"], "enum": ["a", "b", null] },
            "part": { "type": "object", "properties": { "size": { "type": "integer", "minimum": -9, "maximum": 9 } } },
            "place": { "anyOf": [{ "oneOf": [{ "const": "here" }] }, { "type": "null" }] },
            "on": { "type": "boolean" },
            "blob": { "type": "string", "contentEncoding": "base64" },
        },
    })
}

fn merged(constraints: Value) -> Result<Value, Vec<String>> {
    let by_arg = serde_json::from_value(constraints).unwrap();
    let (mut schema, mut faults) = (schema(), Faults::default());
    merge("verbs.v.args", &mut schema, &by_arg, &mut faults);
    if faults.0.is_empty() { Ok(schema) } else { Err(faults.0.iter().map(ToString::to_string).collect()) }
}

#[test]
fn what_narrows_is_merged_where_it_belongs() {
    let merged = merged(json!({
        "name": { "pattern": "^[a-z]+$", "maxLength": 8, "examples": ["deploy"], "description": "d", "title": "t" },
        "uid": { "minimum": 1000, "enum": [1000, 2000] },
        "ratio": { "minimum": -1, "maximum": 1 },
        "groups": { "maxItems": 3, "uniqueItems": true, "items": { "minLength": 1 } },
        "kind": { "enum": ["a"] },
        "part": { "properties": { "size": { "maximum": 3 } } },
        "place": { "description": "Where" },
        "on": { "examples": [true] },
        "blob": { "maxLength": 100 },
    }))
    .unwrap();
    let at = |pointer: &str| merged.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/properties/name/pattern"), "^[a-z]+$");
    assert_eq!(at("/properties/uid/minimum"), 1000);
    assert_eq!(at("/properties/uid/maximum"), 65535);
    assert_eq!(at("/properties/uid/enum"), json!([1000, 2000, null]), "null stays allowed");
    assert_eq!(at("/properties/groups/items"), json!({ "type": "string", "minLength": 1 }));
    assert_eq!(at("/properties/kind/enum"), json!(["a", null]));
    assert_eq!(at("/properties/part/properties/size/maximum"), 3);
    assert_eq!(at("/properties/place/anyOf/0/description"), "Where");
}

#[test]
fn what_does_not_fit_is_a_fault_that_names_key_value_and_choices() {
    let refused = [
        (json!({ "nme": {} }), "verbs.v.args.nme: found no such argument or field; wanted name, uid,"),
        (
            json!({ "name": { "minimum": 1 } }),
            "verbs.v.args.name.minimum: found 1; wanted for an argument of this type",
        ),
        (json!({ "name": { "min_length": 1 } }), "pattern, minLength, maxLength, enum, title, description or examples"),
        (json!({ "name": { "pattern": "(" } }), "verbs.v.args.name.pattern: found \"(\"; wanted a regular expression"),
        (json!({ "name": { "pattern": "(?=x)" } }), "without look-around"),
        (json!({ "name": { "maxLength": "8" } }), "maxLength: found \"8\"; wanted a count"),
        (json!({ "name": { "minLength": -1 } }), "minLength: found -1; wanted a count"),
        (
            json!({ "name": { "pattern": "^a$", "examples": ["b"] } }),
            "name.examples: found \"b\"; wanted examples that",
        ),
        (json!({ "uid": { "maximum": 65536 } }), "uid.maximum: found 65536; wanted a whole number within"),
        (json!({ "uid": { "enum": [70000] } }), "uid.enum: found [70000]"),
        (json!({ "uid": { "enum": [] } }), "uid.enum: found []"),
        (json!({ "uid": { "multipleOf": 0 } }), "uid.multipleOf: found 0"),
        (json!({ "kind": { "enum": ["c"] } }), "kind.enum: found [\"c\"]"),
        (json!({ "groups": { "items": 3 } }), "groups.items: found 3; wanted a table of keywords"),
        (json!({ "groups": { "items": { "maximum": 3 } } }), "groups.items.maximum: found 3"),
        (
            json!({ "part": { "properties": { "width": {} } } }),
            "part.properties.width: found no such argument or field; wanted size",
        ),
        (json!({ "part": { "properties": { "size": 1 } } }), "part.properties.size: found 1; wanted a table"),
        (
            json!({ "place": { "pattern": "x" } }),
            "place.pattern: found \"x\"; wanted for an argument of this type, one of the keywords title",
        ),
        (json!({ "on": { "examples": ["yes"] } }), "on.examples: found \"yes\""),
        (json!({ "blob": { "pattern": "x" } }), "blob.pattern"),
        (json!({ "name": { "default": "x", "type": "integer" } }), "name.default: found \"x\""),
    ];
    for (constraints, wanted) in refused {
        let faults = merged(constraints.clone()).expect_err("refused").join("\n");
        assert!(faults.contains(wanted), "{constraints}: {faults}");
    }
    let faults = merged(json!({ "name": { "minimum": 1, "maximum": 2 }, "uid": { "pattern": "x" } })).unwrap_err();
    assert_eq!(faults.len(), 3, "all at once");
}
