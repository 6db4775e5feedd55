//! What a release asks beyond another: capabilities and their scopes, limits, effect
//! classes, imports. Where it can't be shown that something asks for less or the same, it
//! counts as more; so a scope of a kind that is not known here never passes unseen.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use utoipa::ToSchema;
use viworks_signing::release::{EffectClass, Release};

/// One difference between two releases.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Difference {
    pub kind: Kind,
    /// Which one, for example `accounts.groups` or `add_user`.
    pub what: String,
    /// Null where the former release has nothing of it.
    pub before: Value,
    /// Null where the new release has nothing of it.
    pub after: Value,
    /// Whether the new release asks for more by this.
    pub more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Capability,
    Scope,
    Limit,
    Effect,
    Import,
}

/// Every difference, those that ask for more first.
#[must_use]
pub fn differences(before: &Release, after: &Release) -> Vec<Difference> {
    let mut found = Vec::new();
    capabilities(&value(&before.capabilities), &value(&after.capabilities), &mut found);
    limits(&value(&before.limits), &value(&after.limits), &mut found);
    effects(before, after, &mut found);
    imports(before, after, &mut found);
    found.sort_by_key(|difference| !difference.more);
    found
}

/// Whether the new release asks for more.
#[must_use]
pub fn asks_more(differences: &[Difference]) -> bool {
    differences.iter().any(|difference| difference.more)
}

fn value(of: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn of<'a>(map: &'a Map<String, Value>, key: &str) -> &'a Value {
    map.get(key).unwrap_or(&Value::Null)
}

fn keys<'a>(a: &'a Map<String, Value>, b: &'a Map<String, Value>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

fn capabilities(before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<Difference>) {
    for name in keys(before, after) {
        match (of(before, name), of(after, name)) {
            (Value::Object(before), Value::Object(after)) => scope(name, before, after, found),
            (before, after) if before != after => found.push(Difference {
                kind: Kind::Capability,
                what: name.clone(),
                before: before.clone(),
                after: after.clone(),
                more: !after.is_null(),
            }),
            _ => {}
        }
    }
}

fn scope(capability: &str, before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<Difference>) {
    for field in keys(before, after) {
        let (before, after) = (of(before, field), of(after, field));
        if before != after {
            found.push(Difference {
                kind: Kind::Scope,
                what: format!("{capability}.{field}"),
                before: before.clone(),
                after: after.clone(),
                more: !within(capability, field, before, after),
            });
        }
    }
}

/// Whether a scope's field allows no more than it did.
fn within(capability: &str, field: &str, before: &Value, after: &Value) -> bool {
    match (capability, field, before, after) {
        // Every label must be on the container: more labels, fewer containers.
        ("containers", "labels", Value::Array(before), Value::Array(after)) => before.iter().all(|l| after.contains(l)),
        ("containers", "min_age_secs", Value::Number(before), Value::Number(after)) => {
            after.as_u64() >= before.as_u64()
        }
        ("accounts", "uids", Value::Object(before), Value::Object(after)) => {
            let end = |map: &Map<String, Value>, end| of(map, end).as_u64().unwrap_or_default();
            end(after, "min") >= end(before, "min") && end(after, "max") <= end(before, "max")
        }
        ("state", _, Value::Number(before), Value::Number(after)) => after.as_u64() <= before.as_u64(),
        // Lists of what is allowed, patterns among them.
        (_, _, Value::Array(before), Value::Array(after)) => {
            let any = before.iter().any(|pattern| pattern == "*");
            any || after.iter().all(|one| before.contains(one))
        }
        (_, _, Value::Bool(before), Value::Bool(after)) => *before || !*after,
        _ => false,
    }
}

fn limits(before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<Difference>) {
    for name in keys(before, after) {
        let (before, after) = (of(before, name), of(after, name));
        if before != after {
            let less = matches!((before.as_u64(), after.as_u64()), (Some(before), Some(after)) if after <= before);
            let (before, after) = (before.clone(), after.clone());
            found.push(Difference { kind: Kind::Limit, what: name.clone(), before, after, more: !less });
        }
    }
}

/// A verb of a higher class than it had, or a new one of a higher class than any had.
fn effects(before: &Release, after: &Release, found: &mut Vec<Difference>) {
    let highest = before.verbs.values().map(|verb| verb.effect).max().unwrap_or(EffectClass::Read);
    let class = |verb: Option<EffectClass>| serde_json::to_value(verb).unwrap_or_default();
    let names: BTreeSet<&String> = before.verbs.keys().chain(after.verbs.keys()).collect();
    for name in names {
        let (was, is) = (before.verbs.get(name).map(|v| v.effect), after.verbs.get(name).map(|v| v.effect));
        if was != is {
            let more = is > Some(was.unwrap_or(highest));
            found.push(Difference {
                kind: Kind::Effect,
                what: name.clone(),
                before: class(was),
                after: class(is),
                more,
            });
        }
    }
}

/// A patch release of WASI brings no new right, and the runtime seals WASI anyway.
fn family(import: &str) -> &str {
    match (import.starts_with("wasi:"), import.rsplit_once('.')) {
        (true, Some((family, _))) => family,
        _ => import,
    }
}

fn imports(before: &Release, after: &Release, found: &mut Vec<Difference>) {
    let known: BTreeSet<&str> = before.imports.iter().map(|i| family(i)).collect();
    let now: BTreeSet<&str> = after.imports.iter().map(|i| family(i)).collect();
    for import in after.imports.iter().filter(|i| !known.contains(family(i))) {
        let (what, after) = (import.clone(), import.as_str().into());
        found.push(Difference { kind: Kind::Import, what, before: Value::Null, after, more: true });
    }
    for import in before.imports.iter().filter(|i| !now.contains(family(i))) {
        let (what, before) = (import.clone(), import.as_str().into());
        found.push(Difference { kind: Kind::Import, what, before, after: Value::Null, more: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn release(capabilities: Value, limits: Value, verbs: &[(&str, &str)], imports: &[&str]) -> Release {
        let verbs: Map<String, Value> = verbs
            .iter()
            .map(|(name, effect)| {
                let verb = json!({"function": name, "args": {}, "result": {}, "effect": effect, "timeoutSecs": 5});
                ((*name).to_owned(), verb)
            })
            .collect();
        serde_json::from_value(json!({
            "plugin": "p", "version": "1.0.0", "epoch": 0, "sequence": 1,
            "artifact": {"kind": "component", "size": 8}, "world": "w", "imports": imports, "verbs": verbs,
            "capabilities": capabilities, "limits": limits, "hostApi": "1.0", "notBefore": "1970-01-01T00:00:00Z",
        }))
        .expect("a release")
    }

    fn more(before: &Release, after: &Release) -> Vec<String> {
        differences(before, after).into_iter().filter(|d| d.more).map(|d| d.what).collect()
    }

    #[test]
    fn the_same_and_less_is_not_more() {
        let wide = json!({"accounts": {"groups": ["docker", "adm"], "uids": {"min": 1000, "max": 9000},
            "password_hashes": true}, "containers": {"labels": ["a"], "allow_irreversible": true, "min_age_secs": 5}});
        let narrow = json!({"accounts": {"groups": ["adm"], "uids": {"min": 2000, "max": 3000},
            "password_hashes": false}, "containers": {"labels": ["a", "b"], "min_age_secs": 60}});
        let before = release(wide.clone(), json!({"memoryMib": 32}), &[("a", "change")], &["wasi:io/poll@0.2.6"]);
        let same = release(wide, json!({"memoryMib": 32}), &[("a", "change")], &["wasi:io/poll@0.2.9"]);
        let less = release(narrow, json!({"memoryMib": 16}), &[("a", "read"), ("b", "change")], &[]);
        assert_eq!(more(&before, &same), Vec::<String>::new());
        assert_eq!(more(&before, &less), Vec::<String>::new());
        assert!(!differences(&before, &less).is_empty(), "told all the same");
    }

    #[test]
    fn each_kind_of_more_is_seen() {
        let before = release(
            json!({"accounts": {"groups": ["adm"], "uids": {"min": 2000, "max": 3000}, "home_root": "/home"},
                "containers": {"labels": ["a"], "min_age_secs": 60}, "state": {"max_keys": 1, "max_kib": 1}}),
            json!({"cpuMs": 100}),
            &[("look", "read")],
            &["wasi:io/poll@0.2.6"],
        );
        let after = release(
            json!({"accounts": {"groups": ["adm", "docker"], "uids": {"min": 1000, "max": 3000}, "home_root": "/",
                "password_hashes": true}, "containers": {"labels": [], "min_age_secs": 1, "stop": true},
                "state": {"max_keys": 2, "max_kib": 1}, "vpn": {}}),
            json!({"cpuMs": 101}),
            &[("look", "change"), ("drop", "irreversible")],
            &["wasi:sockets/tcp@0.2.6"],
        );
        let mut found = more(&before, &after);
        found.sort();
        assert_eq!(
            found,
            [
                "accounts.groups",
                "accounts.home_root",
                "accounts.password_hashes",
                "accounts.uids",
                "containers.labels",
                "containers.min_age_secs",
                "containers.stop",
                "cpuMs",
                "drop",
                "look",
                "state.max_keys",
                "vpn",
                "wasi:sockets/tcp@0.2.6"
            ]
        );
    }

    #[test]
    fn a_star_covers_what_was_allowed_to_all() {
        let before = release(json!({"accounts": {"groups": ["*"]}}), json!({}), &[("a", "read")], &[]);
        let after = release(json!({"accounts": {"groups": ["docker"]}}), json!({}), &[("a", "read")], &[]);
        assert_eq!(more(&before, &after), Vec::<String>::new());
        assert_eq!(more(&after, &before), ["accounts.groups"]);
    }
}
