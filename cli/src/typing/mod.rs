//! `--arg name=text` and `--args JSON` into a verb's arguments, typed by its schema.
//! Refuses what the schema has no place for, all faults at once, each with the argument
//! and what the schema expects. What only the backend can judge (patterns, lengths,
//! what lies inside JSON) is left to it.

mod expect;
mod value;

use serde_json::{Map, Value};

pub use expect::expectation;

use crate::error::Error;

/// The arguments: `base` (from `--args`) with `pairs` (from `--arg`) over it.
///
/// # Errors
/// Every fault, a line each.
pub fn arguments(
    schema: &Value,
    base: Map<String, Value>,
    pairs: &[(String, String)],
) -> Result<Map<String, Value>, Error> {
    let empty = Map::new();
    let known = schema["properties"].as_object().unwrap_or(&empty);
    let mut args = base;
    let mut faults = Vec::new();
    for (name, texts) in grouped(pairs) {
        let snake = name.replace('-', "_");
        let name = if known.contains_key(&name) { name } else { snake };
        let Some(schema) = known.get(&name) else {
            faults.push(format!("there is no argument {name}; {}", takes(known)));
            continue;
        };
        match value::typed(schema, &texts) {
            Some(value) => {
                args.insert(name, value);
            }
            None => {
                let given = texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ");
                faults.push(format!("argument {name}: {given} is not {}", expectation(schema)));
            }
        }
    }
    let strange: Vec<&String> = args.keys().filter(|name| !known.contains_key(*name)).collect();
    faults.extend(strange.into_iter().map(|name| format!("there is no argument {name}; {}", takes(known))));
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let told = faults.iter().any(|fault| fault.starts_with(&format!("argument {name}:")));
        if !args.contains_key(name) && !told {
            let wanted = known.get(name).map(expectation).unwrap_or_default();
            faults.push(format!("argument {name} is missing: it is {wanted}"));
        }
    }
    if faults.is_empty() { Ok(args) } else { Err(Error::Usage(faults.join("\n"))) }
}

/// The texts of each name, in the order in which names first came.
fn grouped(pairs: &[(String, String)]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (name, text) in pairs {
        match groups.iter_mut().find(|(known, _)| known == name) {
            Some((_, texts)) => texts.push(text.clone()),
            None => groups.push((name.clone(), vec![text.clone()])),
        }
    }
    groups
}

fn takes(known: &Map<String, Value>) -> String {
    if known.is_empty() {
        return "the verb takes none".into();
    }
    format!("the verb takes {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
