//! Schemas as components give them, and what operators type.

use serde_json::{Map, Value, json};

use super::{arguments, expectation};
use crate::error::Error;

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "times"],
        "properties": {
            "name": { "type": "string", "pattern": "^[a-z]+$", "examples": ["deploy"] },
            "times": { "type": "integer", "minimum": 1, "maximum": 100 },
            "ratio": { "type": ["number", "null"] },
            "dry": { "type": ["boolean", "null"] },
            "groups": { "type": ["array", "null"], "items": { "type": "string" }, "maxItems": 64 },
            "ports": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65535 } },
            "home": { "anyOf": [{ "type": "string", "enum": ["quarantine", "keep"] }, { "type": "null" }] },
            "provider": { "anyOf": [{ "oneOf": [
                { "const": "wireguard" }, { "const": "openvpn" },
                { "type": "object", "properties": { "other": { "type": "string" } }, "required": ["other"] },
            ] }, { "type": "null" }] },
            "point": { "type": "object", "properties": { "x": {}, "y": {} }, "required": ["x", "y"] },
            "points": { "type": "array", "items": { "type": "object", "properties": { "x": {} } } },
            "pair": { "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "string" }], "items": false },
            "blob": { "type": "string", "contentEncoding": "base64" },
        },
    })
}

fn typed(pairs: &[(&str, &str)]) -> Result<Map<String, Value>, String> {
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let base = Map::from_iter([("name".into(), json!("a")), ("times".into(), json!(1))]);
    arguments(&schema(), base, &pairs).map_err(|e| match e {
        Error::Usage(text) => text,
        other => other.to_string(),
    })
}

#[track_caller]
fn is(name: &str, text: &str, value: Value) {
    assert_eq!(typed(&[(name, text)]).map(|args| args[name].clone()), Ok(value), "{name}={text}");
}

#[track_caller]
fn is_not(name: &str, text: &str) {
    let fault = typed(&[(name, text)]).unwrap_err();
    assert!(fault.starts_with(&format!("argument {name}: ")), "{fault}");
}

#[test]
fn plain_types() {
    is("name", "true", json!("true"));
    is("name", "12", json!("12"));
    is("name", "[a]", json!("[a]"));
    is("times", "7", json!(7));
    is("ratio", "0.5", json!(0.5));
    is("ratio", "-3", json!(-3.0));
    is("dry", "true", json!(true));
    is("dry", "no", json!(false));
    for (name, text) in
        [("times", "0"), ("times", "101"), ("times", "1.5"), ("times", "x"), ("ratio", "NaN"), ("dry", "1")]
    {
        is_not(name, text);
    }
}

#[test]
fn lists_by_commas_by_repetition_and_as_json() {
    is("groups", "docker,adm", json!(["docker", "adm"]));
    is("groups", "docker", json!(["docker"]));
    is("groups", "", json!([]));
    is("groups", r#"["a,b"]"#, json!(["a,b"]));
    is("ports", "80,443", json!([80, 443]));
    is_not("ports", "80,https");
    is_not("ports", "80,70000");
    let repeated = typed(&[("groups", "a,b"), ("groups", "c")]).map(|args| args["groups"].clone());
    assert_eq!(repeated, Ok(json!(["a,b", "c"])), "given twice, nothing is split");
    assert!(typed(&[("times", "1"), ("times", "2")]).is_err(), "no list takes two");
}

#[test]
fn choices_variants_records_and_tuples() {
    is("home", "keep", json!("keep"));
    is_not("home", "burn");
    is("provider", "openvpn", json!("openvpn"));
    is("provider", r#"{"other":"x"}"#, json!({ "other": "x" }));
    is_not("provider", r#"{"another":"x"}"#);
    is_not("provider", "pptp");
    is("point", r#"{"x":1,"y":2}"#, json!({ "x": 1, "y": 2 }));
    is_not("point", r#"{"x":1}"#);
    is_not("point", "1,2");
    is("points", r#"{"x":1}"#, json!([{ "x": 1 }]));
    is("points", r#"[{"x":1},{"x":2}]"#, json!([{ "x": 1 }, { "x": 2 }]));
    is("pair", r#"[1,"a"]"#, json!([1, "a"]));
    is_not("pair", "1,a");
}

#[test]
fn bytes_come_as_base64_or_from_a_file() {
    is("blob", "AAEC", json!("AAEC"));
    is_not("blob", "not base64!");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0, 1, 2]).unwrap();
    is("blob", &format!("@{}", file.path().display()), json!("AAEC"));
    is_not("blob", "@/nowhere/at/all");
}

#[test]
fn names_may_have_hyphens_and_faults_come_all_at_once() {
    let schema = json!({ "properties": { "ssh_keys": { "type": "string" }, "n": { "type": "integer" } }, "required": ["n", "ssh_keys"] });
    let pairs = [("ssh-keys".to_owned(), "k".to_owned()), ("n".to_owned(), "1".to_owned())];
    let args = arguments(&schema, Map::new(), &pairs).unwrap();
    assert_eq!(Value::Object(args), json!({ "ssh_keys": "k", "n": 1 }));

    let pairs = [("nam".to_owned(), "k".to_owned()), ("n".to_owned(), "x".to_owned())];
    let fault = arguments(&schema, Map::new(), &pairs).unwrap_err().to_string();
    assert_eq!(
        fault.lines().collect::<Vec<_>>(),
        [
            "there is no argument nam; the verb takes ssh_keys, n",
            "argument n: \"x\" is not a whole number",
            "argument ssh_keys is missing: it is text",
        ]
    );
    let base =
        Map::from_iter([("odd".to_owned(), json!(1)), ("n".to_owned(), json!(1)), ("ssh_keys".to_owned(), json!(""))]);
    assert!(arguments(&schema, base, &[]).unwrap_err().to_string().contains("no argument odd"));
}

#[test]
fn expectations_are_words() {
    let schema = schema();
    let of = |name: &str| expectation(&schema["properties"][name]);
    assert_eq!(of("name"), "text matching ^[a-z]+$, for example deploy");
    assert_eq!(of("times"), "a whole number from 1 to 100");
    assert_eq!(of("groups"), "a list of at most 64, each text");
    assert_eq!(of("home"), "one of quarantine, keep");
    assert_eq!(of("provider"), "one of wireguard, openvpn or a JSON object of other");
    assert_eq!(of("point"), "a JSON object of x, y");
    assert_eq!(of("pair"), "a JSON array of a whole number, then text");
    assert_eq!(of("blob"), "base64, or @FILE");
}
