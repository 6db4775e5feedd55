//! The constraints of `plugin.toml`, merged into the schema that a verb's types gave.
//! They may only narrow. Refuses unknown arguments, keywords that say nothing about the
//! argument's type, bounds outside it, and examples that the schema refuses.

use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::fault::{Faults, choices};

const ANY: [&str; 3] = ["title", "description", "examples"];

/// Merge the constraints of one verb's arguments (`path` is `verbs.NAME.args`) into
/// `args`, the derived schema of all its arguments.
pub(crate) fn merge(path: &str, args: &mut Value, by_arg: &BTreeMap<String, Map<String, Value>>, faults: &mut Faults) {
    for (arg, keywords) in by_arg {
        merge_property(&format!("{path}.{arg}"), args, arg, keywords, faults);
    }
}

fn merge_property(path: &str, object: &mut Value, name: &str, keywords: &Map<String, Value>, faults: &mut Faults) {
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    let names = properties.as_ref().map(|known| choices(known.keys())).unwrap_or_default();
    match properties.and_then(|known| known.get_mut(name)) {
        Some(schema) => merge_schema(path, schema, keywords, faults),
        None => faults.add(path, "no such argument or field", names),
    }
}

fn merge_schema(path: &str, schema: &mut Value, keywords: &Map<String, Value>, faults: &mut Faults) {
    // An optional variant is `anyOf` [its schema, null].
    if let Some(inner) = schema.pointer_mut("/anyOf/0") {
        return merge_schema(path, inner, keywords, faults);
    }
    let kind = Kind::of(schema);
    for (keyword, value) in keywords {
        let path = format!("{path}.{keyword}");
        match (keyword.as_str(), value, kind) {
            ("items", Value::Object(inner), Kind::Array) => {
                if let Some(items) = schema.get_mut("items") {
                    merge_schema(&path, items, inner, faults);
                }
            }
            ("properties", Value::Object(fields), Kind::Object) => {
                for (field, inner) in fields {
                    match inner {
                        Value::Object(inner) => {
                            merge_property(&format!("{path}.{field}"), schema, field, inner, faults);
                        }
                        other => faults.add(format!("{path}.{field}"), other.to_string(), "a table of keywords"),
                    }
                }
            }
            _ => match kind.accepts(keyword, value, schema) {
                Ok(()) => insert(schema, keyword, value.clone()),
                Err(wanted) => faults.add(path, value.to_string(), wanted),
            },
        }
    }
    let examples = schema.get("examples").and_then(Value::as_array).cloned().unwrap_or_default();
    for example in examples.iter().filter(|example| !kind.fits(example, schema)) {
        faults.add(format!("{path}.examples"), example.to_string(), "examples that the argument's own schema allows");
    }
}

/// Narrow `keyword`. Where null is allowed it stays so.
fn insert(schema: &mut Value, keyword: &str, mut value: Value) {
    let Some(keys) = schema.as_object_mut() else { return };
    let null = keys.get("type").is_some_and(Value::is_array);
    if let ("enum", Value::Array(values), true) = (keyword, &mut value, null) {
        values.push(Value::Null);
    }
    keys.insert(keyword.to_owned(), value);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Base64,
    Whole,
    Number,
    Truth,
    Array,
    Tuple,
    Object,
    Other,
}

impl Kind {
    fn of(schema: &Value) -> Self {
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().unwrap_or(&Value::Null),
            kind => kind,
        };
        match kind.as_str() {
            Some("string") if schema.get("contentEncoding").is_some() => Self::Base64,
            Some("string") => Self::Text,
            Some("integer") => Self::Whole,
            Some("number") => Self::Number,
            Some("boolean") => Self::Truth,
            Some("array") if schema.get("prefixItems").is_some() => Self::Tuple,
            Some("array") => Self::Array,
            Some("object") => Self::Object,
            _ => Self::Other,
        }
    }

    fn keywords(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["pattern", "minLength", "maxLength", "enum"],
            Self::Base64 => &["minLength", "maxLength"],
            Self::Whole => &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum"],
            Self::Number => &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
            Self::Array => &["minItems", "maxItems", "uniqueItems", "items"],
            Self::Object => &["properties"],
            Self::Truth | Self::Tuple | Self::Other => &[],
        }
    }

    /// Whether `keyword` with `value` narrows a schema of this kind; else what would.
    fn accepts(self, keyword: &str, value: &Value, schema: &Value) -> Result<(), String> {
        let ok = |fine: bool, wanted: &str| if fine { Ok(()) } else { Err(wanted.to_owned()) };
        let known = self.keywords();
        if !known.contains(&keyword) && !ANY.contains(&keyword) {
            let choices = choices(known.iter().chain(&ANY));
            return Err(format!("for an argument of this type, one of the keywords {choices}"));
        }
        match keyword {
            "title" | "description" => ok(value.is_string(), "text"),
            "examples" => ok(value.is_array(), "a list of examples"),
            "items" | "properties" => Err("a table of keywords".to_owned()),
            "pattern" => {
                let regex = value.as_str().is_some_and(|pattern| Regex::new(pattern).is_ok());
                ok(regex, "a regular expression without look-around and back-references")
            }
            "uniqueItems" => ok(value == &Value::Bool(true), "true"),
            "minLength" | "minItems" => {
                ok(value.as_u64() >= lower(schema, keyword), "a count, not below the type's own")
            }
            "maxLength" | "maxItems" => {
                let most = schema.get(keyword).and_then(Value::as_u64).unwrap_or(u64::MAX);
                ok(value.as_u64().is_some_and(|n| n <= most), "a count, not above the type's own")
            }
            "enum" => {
                let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let fits = |value: &Value| !value.is_null() && self.fits(value, schema);
                ok(!values.is_empty() && values.iter().all(fits), "a list of values that the type has")
            }
            "multipleOf" => ok(value.as_u64().is_some_and(|n| n > 0), "a whole number above 0"),
            _ => ok(
                value.as_i64().is_some_and(|n| self == Self::Number || within(n, schema)),
                "a whole number within the type's range",
            ),
        }
    }

    /// Whether the schema allows `value`, as far as its scalar keywords say.
    fn fits(self, value: &Value, schema: &Value) -> bool {
        let number = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
        let listed = |values: &Value| values.as_array().is_none_or(|values| values.contains(value));
        if !schema.get("enum").is_none_or(listed) {
            return false;
        }
        match (self, value) {
            (Self::Text, Value::String(text)) => {
                let length = text.chars().count() as u64;
                let pattern = schema.get("pattern").and_then(Value::as_str).and_then(|p| Regex::new(p).ok());
                Some(length) >= lower(schema, "minLength")
                    && schema.get("maxLength").and_then(Value::as_u64).is_none_or(|max| length <= max)
                    && pattern.is_none_or(|pattern| pattern.is_match(text))
            }
            (Self::Whole | Self::Number, Value::Number(_)) => value.as_i64().is_some_and(|n| {
                within(n, schema)
                    && number("exclusiveMinimum").is_none_or(|min| n > min)
                    && number("exclusiveMaximum").is_none_or(|max| n < max)
                    && number("multipleOf").is_none_or(|m| m == 0 || n % m == 0)
            }),
            (Self::Base64, Value::String(_)) | (Self::Array | Self::Tuple, Value::Array(_)) => true,
            (Self::Truth, Value::Bool(_)) | (Self::Object, Value::Object(_)) | (Self::Other, _) => true,
            (_, Value::Null) => schema["type"].is_array(),
            _ => false,
        }
    }
}

fn within(n: i64, schema: &Value) -> bool {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
    bound("minimum").is_none_or(|min| n >= min) && bound("maximum").is_none_or(|max| n <= max)
}

fn lower(schema: &Value, keyword: &str) -> Option<u64> {
    Some(schema.get(keyword).and_then(Value::as_u64).unwrap_or(0))
}

#[cfg(test)]
mod tests;
