//! Texts into one value of a schema.
//!
//! A list takes a text for each item when its argument is given several times; given
//! once, the text is split at commas, unless it is a JSON array. Records, tuples and
//! variants with a payload are JSON. Base64 takes `@FILE` and encodes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

/// The value, or `None` where the texts don't fit the schema.
pub(super) fn typed(schema: &Value, texts: &[String]) -> Option<Value> {
    let alternatives = alternatives(schema);
    // Plain text takes anything, so it is asked last.
    let (plain, others): (Vec<_>, Vec<_>) = alternatives.into_iter().partition(|s| is_plain_text(s));
    others.into_iter().chain(plain).find_map(|schema| {
        if kind(schema) == Some("array") {
            return list(schema, texts);
        }
        match texts {
            [text] => single(schema, text),
            _ => None,
        }
    })
}

/// The schema's alternatives, nested ones too, in order.
pub(super) fn alternatives(schema: &Value) -> Vec<&Value> {
    let of = |key: &str| schema[key].as_array();
    match of("anyOf").or_else(|| of("oneOf")) {
        Some(several) => several.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

/// The type that is not null.
pub(super) fn kind(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(one) => Some(one),
        Value::Array(several) => several.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

fn is_plain_text(schema: &Value) -> bool {
    kind(schema) == Some("string") && schema["enum"].is_null() && schema["contentEncoding"].is_null()
}

fn list(schema: &Value, texts: &[String]) -> Option<Value> {
    let items = &schema["items"];
    if let [text] = texts {
        if text.trim_start().starts_with('[') {
            return serde_json::from_str::<Value>(text).ok().filter(Value::is_array);
        }
        if !schema["prefixItems"].is_null() {
            return None;
        }
        if text.is_empty() {
            return Some(Value::Array(Vec::new()));
        }
        // One item of JSON has commas of its own.
        if kind(items) == Some("object") || kind(items) == Some("array") {
            return Some(Value::Array(vec![item(items, text)?]));
        }
        return text.split(',').map(|text| item(items, text)).collect::<Option<_>>().map(Value::Array);
    }
    if schema["prefixItems"].is_null() {
        texts.iter().map(|text| item(items, text)).collect::<Option<_>>().map(Value::Array)
    } else {
        None
    }
}

fn item(schema: &Value, text: &str) -> Option<Value> {
    typed(schema, &[text.to_owned()])
}

fn single(schema: &Value, text: &str) -> Option<Value> {
    let same = |value: &&Value| match value {
        Value::String(word) => word == text,
        other => serde_json::from_str::<Value>(text).is_ok_and(|typed| typed == **other),
    };
    if let Some(only) = schema.get("const") {
        return Some(only).filter(same).cloned();
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().find(same).cloned();
    }
    match kind(schema) {
        Some("boolean") => match text {
            "true" | "yes" | "on" => Some(true.into()),
            "false" | "no" | "off" => Some(false.into()),
            _ => None,
        },
        Some("integer") => text.parse::<i64>().ok().filter(|n| within(schema, *n)).map(Value::from),
        Some("number") => text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
        Some("string") if !schema["contentEncoding"].is_null() => match text.strip_prefix('@') {
            Some(path) => Some(STANDARD.encode(std::fs::read(path).ok()?).into()),
            None => STANDARD.decode(text).ok().map(|_| text.into()),
        },
        Some("string") => Some(text.into()),
        Some("object") => serde_json::from_str::<Value>(text).ok().filter(|v| has_fields_of(schema, v)),
        Some("null") => None,
        _ => serde_json::from_str(text).ok(),
    }
}

fn within(schema: &Value, n: i64) -> bool {
    schema["minimum"].as_i64().is_none_or(|min| n >= min) && schema["maximum"].as_i64().is_none_or(|max| n <= max)
}

/// Enough to tell a variant's cases apart.
fn has_fields_of(schema: &Value, value: &Value) -> bool {
    let Some(fields) = value.as_object() else { return false };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let known = schema["properties"].as_object();
    required.into_iter().all(|name| fields.contains_key(name))
        && fields.keys().all(|name| known.is_none_or(|known| known.contains_key(name)))
}
