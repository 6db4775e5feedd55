//! `plugin.toml`: what a plugin's author writes beside the component. Refuses unknown
//! keys and reports every fault at once, each with its key, its value and the choices.

use semver::Version;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::fault::Faults;
use crate::grant::{self, Scopes};
use crate::names;
use crate::release::{EffectClass, Limits};
use crate::table::Table;

/// A well-formed `plugin.toml`. What only the component can tell (whether its verbs are
/// these, whether a constraint fits its argument) is checked when the release is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub id: String,
    /// Without build metadata.
    pub version: Version,
    pub epoch: u32,
    /// At least 1.
    pub sequence: u32,
    pub description: String,
    /// `MAJOR.MINOR` of `viworks:gateway`.
    pub host_api: String,
    /// RFC 3339, UTC. Absent: whoever signs decides, or no bound.
    pub not_before: Option<String>,
    /// By outside name (snake_case).
    pub verbs: BTreeMap<String, VerbManifest>,
    /// The scopes that the plugin asks for.
    pub capabilities: Scopes,
    pub limits: Limits,
}

/// `[verbs.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct VerbManifest {
    pub effect: EffectClass,
    pub timeout_secs: u32,
    /// By argument: JSON Schema keywords that are merged into the derived schema.
    pub args: BTreeMap<String, Map<String, Value>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("plugin.toml is not TOML")]
    Syntax(#[source] toml::de::Error),
    #[error(transparent)]
    Faults(#[from] Faults),
}

impl Manifest {
    /// Read `plugin.toml`.
    ///
    /// # Errors
    /// The TOML parser's error with its line, or every fault.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: toml::Table = text.parse().map_err(Error::Syntax)?;
        let mut faults = Faults::default();
        let manifest = Self::read(&mut Table::new("", &table, &mut faults));
        Ok(faults.or(manifest)?)
    }

    fn read(top: &mut Table<'_>) -> Self {
        top.known(&[
            "id",
            "version",
            "epoch",
            "sequence",
            "description",
            "host_api",
            "not_before",
            "verbs",
            "capabilities",
            "limits",
        ]);
        let id = top.text("id", "lower-case words joined by \"-\", at most 64 characters", names::is_plugin_id);
        let version = top.text("version", "a version MAJOR.MINOR.PATCH without build metadata", |text| {
            Version::parse(text).is_ok_and(|version| version.build.is_empty())
        });
        let not_before = "an RFC 3339 time in UTC, for example \"2030-01-31T00:00:00Z\"";
        Self {
            id: id.unwrap_or_default(),
            version: version.and_then(|text| Version::parse(&text).ok()).unwrap_or(Version::new(0, 0, 0)),
            epoch: top.optional("epoch").number("epoch", 0, u32::MAX).unwrap_or(0),
            sequence: top.number("sequence", 1, u32::MAX).unwrap_or(1),
            description: top
                .optional("description")
                .text("description", "at most 1024 bytes", |text| text.len() <= 1024)
                .unwrap_or_default(),
            host_api: top
                .optional("host_api")
                .text("host_api", "MAJOR.MINOR, for example \"1.0\"", is_host_api)
                .unwrap_or_else(|| "1.0".to_owned()),
            not_before: top
                .optional("not_before")
                .text("not_before", not_before, |text| humantime::parse_rfc3339(text).is_ok()),
            verbs: read_verbs(top),
            capabilities: grant::read_scopes(top),
            limits: top
                .optional("limits")
                .table("limits", |limits| grant::read_limits(limits, Limits::default(), MOST))
                .unwrap_or_default(),
        }
    }
}

/// `MAJOR.MINOR` in plain decimals.
pub(crate) fn is_host_api(text: &str) -> bool {
    let number = |part: &str| part.parse::<u16>().is_ok_and(|n| n.to_string() == part);
    text.split_once('.').is_some_and(|(major, minor)| number(major) && number(minor))
}

fn read_verbs(top: &mut Table<'_>) -> BTreeMap<String, VerbManifest> {
    let mut verbs = BTreeMap::new();
    top.each("verbs", "a table [verbs.NAME] for each verb", |name, verb| {
        if !names::is_verb(name) {
            verb.fault(name, "a verb's name in snake_case");
        }
        verb.known(&["effect", "timeout_secs", "args"]);
        let effects = "\"read\", \"change\" or \"irreversible\"";
        let effect = verb.text("effect", effects, |text| effect(text).is_some());
        let timeout_secs = verb.optional("timeout_secs").number("timeout_secs", 1, 3_600).unwrap_or(30);
        let mut args = BTreeMap::new();
        if verb.has("args") {
            verb.each("args", "a table of JSON Schema keywords for each argument", |arg, keywords| {
                args.insert(arg.to_owned(), keywords.json());
            });
        }
        let effect = effect.and_then(|text| self::effect(&text)).unwrap_or(EffectClass::Irreversible);
        verbs.insert(name.to_owned(), VerbManifest { effect, timeout_secs, args });
    });
    verbs
}

fn effect(text: &str) -> Option<EffectClass> {
    match text {
        "read" => Some(EffectClass::Read),
        "change" => Some(EffectClass::Change),
        "irreversible" => Some(EffectClass::Irreversible),
        _ => None,
    }
}

/// What a release may ask for at most.
const MOST: Limits = Limits {
    memory_mib: 4_096,
    cpu_ms: 3_600_000,
    host_calls: 1_000_000,
    output_kib: 65_536,
    log_kib: 65_536,
    instances: 1_000,
};

#[cfg(test)]
pub(crate) mod tests;
