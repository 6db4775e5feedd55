//! The host owner's policy: who may release for this host, which plugins it takes, what
//! they may do at most, what one invocation may use at most, and which verbs need
//! approvals. What it does not name is not allowed. Every fault of a file is told at once,
//! with its key, its value and what would be valid.

mod explain;
mod signers;

use std::collections::BTreeMap;

use crate::fault::Faults;
use crate::grant::{self, Patterns, Scopes};
use crate::keys::PublicKey;
use crate::names;
use crate::release::{Limits, Release};
use crate::table::Table;
use crate::trust::Trust;

pub use explain::{CapabilityRow, Explanation, Row, VerbRow};
pub use signers::Sources;

/// The ceilings where the policy sets none. Enough for guests in every language we know.
const CEILINGS: Limits =
    Limits { memory_mib: 128, cpu_ms: 10_000, host_calls: 100_000, output_kib: 1_024, log_kib: 256, instances: 100 };

/// What a policy may allow at most: a result and its log must fit a frame.
const MOST: Limits = Limits {
    memory_mib: 4_096,
    cpu_ms: 3_600_000,
    host_calls: 10_000_000,
    output_kib: 1_024,
    log_kib: 512,
    instances: 1_000,
};

/// A well-formed policy file.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Who may release and review. `None`: the file does not say, and whoever reads it
    /// knows release keys from elsewhere.
    pub signers: Option<Trust>,
    /// The plugins that may be loaded; all without the key `plugins`.
    pub plugins: Patterns,
    pub scopes: Scopes,
    /// Ceilings: a release's own limits apply below them.
    pub limits: Limits,
    pub approvals: Approvals,
}

/// Verbs that operators must approve with their own keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    /// By verb (snake_case): how many distinct keys must approve, at least 1.
    pub verbs: BTreeMap<String, u32>,
    /// The operators' keys, each once.
    pub keys: Vec<PublicKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not TOML")]
    Syntax(#[source] toml::de::Error),
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Why a policy does not take a verified release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy takes no plugin {plugin:?}, only {wanted}")]
pub struct NotTaken {
    pub plugin: String,
    /// The policy's patterns.
    pub wanted: String,
}

impl NotTaken {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "E_POLICY_PLUGIN"
    }
}

impl Default for Policy {
    /// Takes every plugin and allows none of them anything.
    fn default() -> Self {
        Self {
            signers: None,
            plugins: Patterns::any(),
            scopes: Scopes::default(),
            limits: CEILINGS,
            approvals: Approvals::default(),
        }
    }
}

impl Policy {
    /// Read a policy file. Keys that it names by id or by file come from `sources`.
    ///
    /// # Errors
    /// The TOML parser's error with its line, or every fault.
    pub fn parse(text: &str, sources: &Sources<'_>) -> Result<Self, Error> {
        let table: toml::Table = text.parse().map_err(Error::Syntax)?;
        let mut faults = Faults::default();
        let policy = Self::read(&mut Table::new("", &table, &mut faults), sources);
        Ok(faults.or(policy)?)
    }

    fn read(top: &mut Table<'_>, sources: &Sources<'_>) -> Self {
        top.known(&["signers", "plugins", "capabilities", "limits", "approvals"]);
        let (signers, approvals) = signers::read(top, sources);
        Self {
            signers,
            plugins: plugins(top),
            scopes: grant::read_scopes(top),
            limits: top
                .optional("limits")
                .table("limits", |limits| grant::read_limits(limits, CEILINGS, MOST))
                .unwrap_or(CEILINGS),
            approvals,
        }
    }

    /// Who may speak: the file's signers, or any one of `known`.
    #[must_use]
    pub fn trust(&self, known: &[PublicKey]) -> Trust {
        self.signers.clone().unwrap_or_else(|| Trust::any_of(known))
    }

    /// Whether this host takes the plugin at all.
    ///
    /// # Errors
    /// Names the patterns that it would have to match.
    pub fn takes(&self, release: &Release) -> Result<(), NotTaken> {
        if self.plugins.match_any(&release.plugin) {
            return Ok(());
        }
        let wanted = self.plugins.iter().collect::<Vec<_>>().join(", ");
        let wanted = if wanted.is_empty() { "none".to_owned() } else { wanted };
        Err(NotTaken { plugin: release.plugin.clone(), wanted })
    }

    /// How many operators must approve `verb`; 0: none.
    #[must_use]
    pub fn approvals_of(&self, verb: &str) -> u32 {
        self.approvals.verbs.get(verb).copied().unwrap_or(0)
    }
}

/// `plugins = ["accounts", "vpn-*"]`
fn plugins(top: &mut Table<'_>) -> Patterns {
    if !top.has("plugins") {
        return Patterns::any();
    }
    let wanted = "a plugin's id, in which * stands for any run of characters and ? for one";
    // With its wildcards replaced, it must be what an id can be.
    let possible = |text: &str| {
        let filled = text.replace(['*', '?'], "a");
        Patterns::parse([text]).is_ok() && names::is_plugin_id(&filled)
    };
    let texts = top.texts("plugins", wanted, possible);
    Patterns::parse(texts.iter().map(String::as_str)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
