//! The `secrets` capability: a plugin names a secret and passes the handle that it gets on
//! to another capability, whose provider resolves it when it applies the effect. Refuses to
//! show the bytes to anybody else: guests, journals, plans, receipts, logs and recordings
//! hold names at most.

mod sources;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use viworks_signing::grant::{Grant, Granted, SecretsScope};
use zeroize::Zeroizing;

use super::Call;
use super::wit::viworks::gateway::scripts::SecretVariable;
use super::wit::viworks::gateway::{secrets as wit, types};
use crate::broker::wire::Request;
use crate::failure::Failure;
use crate::host::Reach;

/// Handles that one invocation may hold.
pub(crate) const MAX_HANDLES: usize = 64;

/// `[providers.secrets]`. Without either, there are none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A directory of root's alone (0700), a file a secret (0600), named after it.
    pub directory: Option<PathBuf>,
    /// Secrets in the gateway's own environment: `PREFIX` and the name in upper case, `-`
    /// as `_`. For hosts whose supervisor hands them over.
    pub environment_prefix: Option<String>,
}

/// Finds secrets, each time anew: what the host's owner replaces is used from then on.
#[derive(Debug)]
pub struct Provider {
    config: Config,
    reach: Reach,
}

/// The bytes of a secret, cleared when dropped. Shows itself to nobody.
pub struct Bytes(Zeroizing<Vec<u8>>);

impl Bytes {
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bytes(…)")
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &Config, reach: Reach) -> Self {
        Self { config: config.clone(), reach }
    }

    /// Whether there is one of that name.
    ///
    /// # Errors
    /// As [`Provider::resolve`]'s.
    pub(crate) async fn there(&self, name: &str) -> Result<(), Failure> {
        match self.reach.broker() {
            Some(broker) => broker.ask(Request::Secret { name: name.to_owned() }).await,
            // Only that it is there: the bytes go no further than this line.
            None => self.resolve(name).await.map(drop),
        }
    }

    /// The bytes behind a name; for providers of other capabilities, when they apply.
    ///
    /// # Errors
    /// `not-found`, or `unavailable` if it is there and must not be used as it is.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Bytes, Failure> {
        let (config, name) = (self.config.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || sources::find(&config, &name))
            .await
            .map_err(|e| Failure::Failed(format!("looking for a secret ended early: {e}")))?
    }
}

impl wit::Host for Call {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<String, types::Failure>> {
        self.enter()?;
        Ok(self.secrets_open(name).await.map_err(Into::into))
    }
}

impl Call {
    async fn secrets_open(&mut self, name: String) -> Result<String, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        check_name(&name)?;
        self.require(scope, "secrets.names", || format!("secret {name}"), |s| s.names.match_any(&name))?;
        self.host.secrets.there(&name).await?;
        if let Some(at) = self.secrets.iter().position(|held| *held == name) {
            return Ok(handle(at));
        }
        if self.secrets.len() >= MAX_HANDLES {
            return Err(Failure::InvalidArgument(format!("more than {MAX_HANDLES} secrets in one invocation")));
        }
        self.secrets.push(name);
        Ok(handle(self.secrets.len() - 1))
    }

    /// The name behind a handle of this invocation, for a function of `capability` that
    /// will have it resolved.
    ///
    /// # Errors
    /// `invalid-argument` for what is no handle, `denied` where the scope does not let
    /// `capability` use secrets.
    pub(crate) fn secret(&mut self, text: &str, capability: &str) -> Result<String, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        let name = (0..self.secrets.len()).find(|at| handle(*at) == text).map(|at| self.secrets[at].clone());
        let name = name.ok_or_else(|| Failure::InvalidArgument("that is no handle of a secret".into()))?;
        let what = || format!("secret {name} for {capability}");
        self.require(scope, "secrets.uses", what, |s| s.uses.iter().any(|used| used == capability))?;
        Ok(name)
    }
}

/// What a guest asks to be put into variables, as names.
///
/// # Errors
/// `invalid-argument` for what is no variable or handle; `denied`.
pub(crate) fn variables(call: &mut Call, asked: &[SecretVariable]) -> Result<Vec<(String, String)>, Failure> {
    if asked.len() > MAX_HANDLES {
        return Err(Failure::InvalidArgument(format!("more than {MAX_HANDLES} secrets")));
    }
    let mut variables: Vec<(String, String)> = Vec::with_capacity(asked.len());
    for SecretVariable { variable, secret } in asked {
        check_variable(variable, variables.iter().any(|(known, _)| known == variable))?;
        variables.push((variable.clone(), call.secret(secret, "scripts")?));
    }
    Ok(variables)
}

/// Whether a secret may be put into that variable, once.
///
/// # Errors
/// `invalid-argument`.
pub(crate) fn check_variable(variable: &str, again: bool) -> Result<(), Failure> {
    let first = variable.bytes().next().is_some_and(|b| b.is_ascii_uppercase() || b == b'_');
    let good = first && variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    // These decide what runs, or are this gateway's to set.
    let taken = ["PATH", "LANG", "IFS", "ENV", "BASH_ENV"].contains(&variable);
    if !good || again || taken || variable.len() > 64 || variable.starts_with("LD_") || variable.starts_with("VIW_") {
        return Err(Failure::InvalidArgument(format!("{variable:?} can't be a variable for a secret")));
    }
    Ok(())
}

/// Means something within its invocation alone.
fn handle(at: usize) -> String {
    format!("secret#{}", at + 1)
}

fn granted(grant: &Grant) -> Result<&Granted<SecretsScope>, Failure> {
    grant.secrets.as_ref().ok_or_else(|| Failure::Denied {
        capability: "secrets".into(),
        rule: "grant: secrets".into(),
        message: "secrets is not granted".into(),
    })
}

/// One plain file name: no path, nothing hidden.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if name.len() <= 64 && first && name.bytes().all(inner) {
        return Ok(());
    }
    Err(Failure::InvalidArgument("a secret's name is at most 64 letters, digits, '.', '_' and '-', no path".into()))
}

/// Whether a grant lets a secret of that name be known of, and be used by `capability`.
///
/// # Errors
/// `denied` with the rule, or `invalid-argument`.
pub(crate) fn judge(name: &str, capability: Option<&str>, grant: &Grant) -> Result<(), Failure> {
    let scope = granted(grant)?;
    check_name(name)?;
    let denied =
        |rule: String| Failure::Denied { capability: "secrets".into(), rule, message: format!("secret {name}") };
    scope.require("secrets.names", |s| s.names.match_any(name)).map_err(|refused| denied(refused.rule))?;
    let used = |s: &SecretsScope| capability.is_none_or(|by| s.uses.iter().any(|used| used == by));
    scope.require("secrets.uses", used).map_err(|refused| denied(refused.rule))
}
