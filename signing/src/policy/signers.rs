//! `[signers]` and `[approvals]`: keys by value, by id or by file. Refuses weak keys, a key
//! in two roles, and thresholds that the keys can't meet.

use std::collections::BTreeMap;
use std::path::Path;

use super::Approvals;
use crate::keys::PublicKey;
use crate::names;
use crate::table::Table;
use crate::trust::{Role, Trust};

const KEY: &str = "\"sha256:KEYID\" of a key that is known, \"file:PATH\" of a PEM file, or an SPKI PEM block";
/// More keys than this fill no role.
const MAX_KEYS: u32 = 64;

/// Where keys come from that a policy only names.
pub struct Sources<'a> {
    /// What `sha256:KEYID` is looked for in.
    pub known: &'a [PublicKey],
    /// Reads the file of `file:PATH`; a problem in words otherwise.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("known", &self.known).finish_non_exhaustive()
    }
}

pub(super) fn read(top: &mut Table<'_>, sources: &Sources<'_>) -> (Option<Trust>, Approvals) {
    let mut owners = Owners(BTreeMap::new());
    let signers = top.optional("signers").table("signers", |table| signers(table, sources, &mut owners)).flatten();
    let approvals = top
        .optional("approvals")
        .table("approvals", |table| approvals(table, sources, &mut owners))
        .unwrap_or_default();
    (signers, approvals)
}

/// Which role a key was given first.
struct Owners(BTreeMap<[u8; 32], &'static str>);

fn signers(table: &mut Table<'_>, sources: &Sources<'_>, owners: &mut Owners) -> Option<Trust> {
    table.known(&["release", "security"]);
    let any_known = Role::new(1, sources.known.iter().copied()).ok();
    let release = if table.has("release") {
        table.table("release", |role| self::role(role, "release", 1, sources, owners)).flatten()
    } else if any_known.is_none() {
        table.fault_at(
            "release",
            "nothing",
            "{ threshold = 1, keys = [...] }, since no release key is known otherwise",
        );
        None
    } else {
        any_known
    };
    let security = if table.has("security") {
        table.table("security", |role| self::role(role, "security", 0, sources, owners)).flatten()
    } else {
        Some(Role::default())
    };
    match Trust::new(release?, security?) {
        Ok(trust) => Some(trust),
        // Only a known key can do this: those of the file were told apart by `owners`.
        Err(error) => {
            table.fault_at("security.keys", error.to_string(), "keys that hold no other role");
            None
        }
    }
}

/// `{ threshold = N, keys = [...] }`; without a threshold one key must speak.
fn role(
    table: &mut Table<'_>,
    name: &'static str,
    least: u32,
    sources: &Sources<'_>,
    owners: &mut Owners,
) -> Option<Role> {
    table.known(&["threshold", "keys"]);
    let threshold = if table.has("threshold") { table.number("threshold", least, MAX_KEYS) } else { Some(1) };
    let keys = keys(table, name, sources, owners);
    match Role::new(threshold?, keys) {
        Ok(role) => Some(role),
        Err(few) => {
            let most = few.keys;
            table.fault_at(
                "threshold",
                few.threshold.to_string(),
                format!("at most {most}, its number of usable keys"),
            );
            None
        }
    }
}

fn approvals(table: &mut Table<'_>, sources: &Sources<'_>, owners: &mut Owners) -> Approvals {
    table.known(&["verbs", "keys"]);
    let mut verbs = BTreeMap::new();
    let mut most = 0;
    table.optional("verbs").table("verbs", |table| {
        for verb in table.keys() {
            if !names::is_verb(verb) {
                table.fault_at(verb, "a number", "a verb's name in snake_case");
            }
            if let Some(count) = table.number(verb, 1, MAX_KEYS) {
                most = most.max(count);
                verbs.insert(verb.clone(), count);
            }
        }
    });
    let keys = keys(table, "approvals", sources, owners);
    if most as usize > keys.len() {
        let wanted = format!("at least {most}, as many as a verb's approvals");
        table.fault_at("keys", format!("{} usable keys", keys.len()), wanted);
    }
    Approvals { verbs, keys }
}

/// The keys of a role; each fault names its item.
fn keys(table: &mut Table<'_>, role: &'static str, sources: &Sources<'_>, owners: &mut Owners) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    for (i, text) in table.texts("keys", KEY, |_| true).into_iter().enumerate() {
        let item = format!("keys[{i}]");
        match named(&text, sources) {
            Err(problem) => table.fault_at(&item, shown(&text), problem),
            Ok(found) => {
                for key in found {
                    match owners.0.insert(key.bytes(), role) {
                        None => keys.push(key),
                        Some(owner) => {
                            owners.0.insert(key.bytes(), owner);
                            let found = format!("key {}", key.id());
                            table.fault_at(&item, found, format!("another key: it is one of {owner} already"));
                        }
                    }
                }
            }
        }
    }
    keys
}

fn named(text: &str, sources: &Sources<'_>) -> Result<Vec<PublicKey>, String> {
    let pem =
        |pem: &str| PublicKey::all_from_pem(pem).map_err(|error| format!("{KEY}; this is {error} ({})", error.code()));
    if let Some(id) = text.strip_prefix("sha256:") {
        let known = sources.known.iter().find(|key| key.id() == id).copied();
        return known.map(|key| vec![key]).ok_or_else(|| {
            let ids: Vec<String> = sources.known.iter().map(|key| format!("sha256:{}", key.id())).collect();
            let ids = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            format!("the id of a known key: {ids}")
        });
    }
    match text.strip_prefix("file:") {
        Some(path) => pem(&(sources.read)(Path::new(path)).map_err(|problem| format!("{KEY}; the file {problem}"))?),
        None => pem(text),
    }
}

/// A PEM block is long, and its first line says nothing.
fn shown(text: &str) -> String {
    let line = text.lines().find(|line| !line.starts_with("-----") && !line.is_empty()).unwrap_or(text);
    let short: String = line.chars().take(80).collect();
    format!("{short:?}")
}
