//! The keys of a configuration and where their values come from: the TOML file, then the
//! environment over it. Refuses keys that it does not know, naming the nearest that exists.

use std::collections::BTreeMap;

use super::fault::Faults;
use crate::recording;
use crate::selfupdate;

/// Every key of the file's top level. In the environment a key is `VIW_AGENT_` and its
/// name in upper case.
pub(super) const KEYS: &[&str] = &[
    "backend_url",
    "agent_id",
    "cert_path",
    "key_path",
    "trust_bundle",
    "backend_spki_pin",
    "site",
    "labels",
    "container_engine",
    "scripts_root",
    "required_scripts",
    "max_concurrency",
    "queue",
    "cmd_timeout_secs",
    "state_dir",
    "warrant_keys",
    "release_keys",
    "policy",
    "trusted_root",
    "repository_grace_hours",
    "status_socket",
    "audit_log",
    "telemetry_secs",
    "drain_secs",
    "undo_hours",
    "broker",
    "broker_user",
    "broker_state_dir",
    "broker_audit_log",
    "log_format",
];

/// The tables that the environment can't set.
const PROVIDERS: &str = "providers";
const RECORDING: &str = "recording";
const SELF_UPDATE: &str = "self_update";
const TABLES: [&str; 3] = [PROVIDERS, RECORDING, SELF_UPDATE];

const PREFIX: &str = "VIW_AGENT_";

/// The name of a key in the environment.
pub(super) fn env_name(key: &str) -> String {
    // The contract's name of this one is older than the rule.
    format!("{PREFIX}{}", if key == "agent_id" { "ID".to_owned() } else { key.to_uppercase() })
}

/// The environment's `VIW_AGENT_*` variables, or what a test gives in their place.
pub type Env = BTreeMap<String, String>;

/// The process's environment as far as it is this program's.
#[must_use]
pub fn process_env() -> Env {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|n| n.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    ours.collect()
}

/// The merged values, one way to read each kind. What can't be read becomes a fault and
/// its default, so that the remaining keys are looked at all the same.
pub(super) struct Values {
    table: toml::Table,
}

impl Values {
    /// Lay `env` over `table`.
    pub(super) fn merge(mut table: toml::Table, env: &Env, faults: &mut Faults) -> Self {
        for (key, value) in &table {
            if !KEYS.contains(&key.as_str()) && !TABLES.contains(&key.as_str()) {
                let near = nearest(key, KEYS.iter().copied().chain(TABLES));
                faults.add(key, shown(value), "there is no such key", format!("did you mean {near}? Else remove it"));
            }
        }
        let names: BTreeMap<String, &str> = KEYS.iter().map(|key| (env_name(key), *key)).collect();
        for (name, value) in env {
            if let Some(key) = names.get(name) {
                table.insert((*key).to_owned(), toml::Value::String(value.clone()));
            } else if name != super::CONFIG_ENV {
                let near = nearest(name, names.keys().map(String::as_str));
                let mend = format!("did you mean {near}? Else unset it");
                faults.add(name, value, "there is no such variable", mend);
            }
        }
        Self { table }
    }

    /// A text; `None` when absent or empty.
    pub(super) fn text(&self, key: &str, faults: &mut Faults) -> Option<String> {
        match self.table.get(key)? {
            toml::Value::String(text) if text.trim().is_empty() => None,
            toml::Value::String(text) => Some(text.trim().to_owned()),
            other => {
                faults.add(key, shown(other), "is not a text", format!("write {key} = \"…\""));
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required(&self, key: &str, what: &str, faults: &mut Faults) -> Option<String> {
        let is_text = self.table.get(key).is_none_or(toml::Value::is_str);
        let text = self.text(key, faults);
        if text.is_none() && is_text {
            faults.add(key, "", "is missing or empty", format!("set {key} (or {}) to {what}", env_name(key)));
        }
        text
    }

    /// A whole number within bounds, or its default.
    pub(super) fn number(&self, key: &str, default: u32, bounds: (u32, u32), faults: &mut Faults) -> u32 {
        let Some(value) = self.table.get(key) else { return default };
        let number = match value {
            toml::Value::Integer(number) => u32::try_from(*number).ok(),
            toml::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let (least, most) = bounds;
        number.filter(|n| (least..=most).contains(n)).unwrap_or_else(|| {
            let problem = format!("is not a whole number from {least} to {most}");
            faults.add(key, shown(value), problem, format!("set it within the bounds, or remove it for {default}"));
            default
        })
    }

    /// A list of texts; in the environment separated by commas.
    pub(super) fn list(&self, key: &str, faults: &mut Faults) -> Vec<String> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        if let toml::Value::String(text) = value {
            return text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
        }
        value.clone().try_into().unwrap_or_else(|_| {
            faults.add(key, shown(value), "is not a list of texts", format!("write {key} = [\"…\", \"…\"]"));
            Vec::new()
        })
    }

    /// A table of texts; in the environment `a=b,c=d`.
    pub(super) fn pairs(&self, key: &str, faults: &mut Faults) -> BTreeMap<String, String> {
        let Some(value) = self.table.get(key) else { return BTreeMap::new() };
        let pairs = match value {
            toml::Value::String(text) => text
                .split(',')
                .filter(|pair| !pair.trim().is_empty())
                .map(|pair| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())))
                .collect(),
            other => other.clone().try_into().ok(),
        };
        pairs.unwrap_or_else(|| {
            let mend = format!("write [{key}] and a line name = \"value\" for each, or {}=a=b,c=d", env_name(key));
            faults.add(key, shown(value), "is not a table of texts", mend);
            BTreeMap::new()
        })
    }

    /// The table `[recording]`.
    pub(super) fn recording(&self, faults: &mut Faults) -> recording::Config {
        let Some(value) = self.table.get(RECORDING) else { return recording::Config::default() };
        let config: recording::Config = value.clone().try_into().unwrap_or_else(|e: toml::de::Error| {
            faults.add(RECORDING, shown(value), e.message(), "write enabled, max_mib and keep, or remove it");
            recording::Config::default()
        });
        if config.max_mib == 0 || config.max_mib > 65_536 || config.keep == 0 || config.keep > 100_000 {
            let mend = "set max_mib from 1 to 65536 and keep from 1 to 100000, or enabled = false";
            faults.add(RECORDING, shown(value), "is out of bounds", mend);
        }
        config
    }

    /// The table `[self_update]`.
    pub(super) fn self_update(&self, faults: &mut Faults) -> selfupdate::Config {
        let Some(value) = self.table.get(SELF_UPDATE) else { return selfupdate::Config::default() };
        let config: selfupdate::Config = value.clone().try_into().unwrap_or_else(|e: toml::de::Error| {
            let mend = "write enabled, channel, window (\"22:00-04:00\", UTC) and confirm_secs, or remove it";
            faults.add(SELF_UPDATE, shown(value), e.message(), mend);
            selfupdate::Config::default()
        });
        if !(5..=3_600).contains(&config.confirm_secs) {
            let mend = "set it within the bounds, or remove it for 60";
            faults.add("self_update.confirm_secs", config.confirm_secs, "is not from 5 to 3600", mend);
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if config.channel.is_empty() || config.channel.len() > 32 || !config.channel.bytes().all(plain) {
            let mend = "write the name of a channel: a to z, 0 to 9 and -, at most 32";
            faults.add("self_update.channel", &config.channel, "is no channel", mend);
        }
        config
    }

    /// The tables under `[providers]`.
    pub(super) fn providers(&self, faults: &mut Faults) -> toml::Table {
        match self.table.get(PROVIDERS) {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table.clone(),
            Some(other) => {
                faults.add(PROVIDERS, shown(other), "is not a table", "write [providers.accounts] and so on");
                toml::Table::new()
            }
        }
    }
}

/// A value as a fault shows it.
fn shown(value: &toml::Value) -> String {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().take(200).collect()
}

/// The name with the fewest edits to `wrong`; a common beginning counts for it.
pub(super) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> &'a str {
    let begins = |name: &str| name.chars().zip(wrong.chars()).take_while(|(a, b)| a == b).count();
    names.into_iter().min_by_key(|name| 2 * wrong.len() + edits(wrong, name) - begins(name)).unwrap_or_default()
}

/// Levenshtein's distance, in one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_key() {
        for (wrong, right) in [("agentid", "agent_id"), ("trust-bundle", "trust_bundle"), ("drain", "drain_secs")] {
            assert_eq!(nearest(wrong, KEYS.iter().copied()), right);
        }
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let mut faults = Faults::default();
        let table = "queue = 3\nsite = \"a\"\nagentid = \"x\"".parse().unwrap();
        let env = [("VIW_AGENT_SITE", "b"), ("VIW_AGENT_LABELS", "r=db, z = eu"), ("VIW_AGENT_QUEU", "1")];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let values = Values::merge(table, &env, &mut faults);
        assert_eq!(values.text("site", &mut faults).as_deref(), Some("b"));
        assert_eq!(values.number("queue", 64, (0, 10), &mut faults), 3);
        assert_eq!(values.pairs("labels", &mut faults)["z"], "eu");
        let said: Vec<_> = faults.iter().map(|f| (f.key.as_str(), f.mend.as_str())).collect();
        assert_eq!(said[0], ("agentid", "did you mean agent_id? Else remove it"));
        assert_eq!(said[1], ("VIW_AGENT_QUEU", "did you mean VIW_AGENT_QUEUE? Else unset it"));
        assert_eq!(said.len(), 2);
    }
}
