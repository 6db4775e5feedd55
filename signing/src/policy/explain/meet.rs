//! What several layers of one field leave over, as far as it can be written down. Two
//! lists of patterns are only named together: a name must match both.

use serde_json::{Value, json};

/// Fields whose lists are plain names: what all layers have is left.
const NAMES: [&str; 3] = ["shells", "providers", "remove_states"];
/// Conditions: every layer's holds.
const CONDITIONS: [&str; 1] = ["labels"];
/// The longer, the stricter.
const WAITS: [&str; 1] = ["min_age_secs"];

/// All layers together, the first first. A layer without the field does not narrow it.
pub(super) fn all<'a>(field: &str, layers: impl Iterator<Item = &'a Value>) -> Value {
    layers.filter(|value| !value.is_null()).cloned().reduce(|a, b| two(field, &a, &b)).unwrap_or(Value::Null)
}

fn two(field: &str, a: &Value, b: &Value) -> Value {
    match (a, b) {
        _ if a == b => a.clone(),
        (Value::Bool(a), Value::Bool(b)) => json!(*a && *b),
        (Value::Number(a), Value::Number(b)) => {
            let less = if a.as_u64() < b.as_u64() { [a, b] } else { [b, a] };
            Value::Number(less[usize::from(WAITS.contains(&field))].clone())
        }
        (Value::Array(a), Value::Array(b)) if NAMES.contains(&field) => {
            a.iter().filter(|x| b.contains(x)).cloned().collect()
        }
        (Value::Array(a), Value::Array(b)) if CONDITIONS.contains(&field) => {
            a.iter().chain(b.iter().filter(|x| !a.contains(x))).cloned().collect()
        }
        (Value::Array(a), Value::Array(b)) => patterns(a, b),
        (Value::Object(a), Value::Object(b)) if field == "uids" => {
            let of = |range: &serde_json::Map<String, Value>, key| range.get(key).and_then(Value::as_u64).unwrap_or(0);
            let (min, max) = (of(a, "min").max(of(b, "min")), of(a, "max").min(of(b, "max")));
            if min > max { json!([]) } else { json!({ "min": min, "max": max }) }
        }
        (Value::Object(a), Value::Object(b)) => {
            a.iter().filter(|(key, value)| b.get(*key) == Some(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
        }
        // Texts that differ can't both hold.
        _ => json!([]),
    }
}

fn patterns(a: &[Value], b: &[Value]) -> Value {
    let any = |list: &[Value]| list.iter().any(|pattern| pattern == "*");
    match (any(a), any(b)) {
        (true, _) => b.into(),
        (_, true) => a.into(),
        _ if a.is_empty() || b.is_empty() => json!([]),
        _ => json!({ "all": [a, b] }),
    }
}
