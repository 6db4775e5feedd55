//! A whole run, asked of a grant by who did not make it. Refuses a digest that the policy
//! does not pin for that very name, and secrets that scripts may not have.

use viworks_signing::grant::{Grant, ScriptsScope};

use super::super::secrets;
use super::{Change, Provider, check_args, check_name, granted, policy};
use crate::failure::Failure;

/// An invocation's id.
const MAX_INVOCATION: usize = 128;

impl Provider {
    /// # Errors
    /// `denied` with the rule, or `invalid-argument`.
    pub(crate) fn judge(&self, change: &Change, grant: &Grant) -> Result<(), Failure> {
        let Change::Run { name, sha256, args, secrets: variables, invocation, .. } = change;
        self.judge_name(name, sha256, grant)?;
        check_args(args)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if invocation.len() > MAX_INVOCATION || !invocation.bytes().all(plain) {
            return Err(Failure::InvalidArgument("that is no invocation's id".into()));
        }
        if variables.len() > secrets::MAX_HANDLES {
            return Err(Failure::InvalidArgument("too many secrets".into()));
        }
        for (at, (variable, secret)) in variables.iter().enumerate() {
            secrets::check_variable(variable, variables[..at].iter().any(|(known, _)| known == variable))?;
            secrets::judge(secret, Some("scripts"), grant)?;
        }
        Ok(())
    }

    /// Whether a grant lets these very bytes run under that name.
    ///
    /// # Errors
    /// `denied` with the rule, or `invalid-argument`.
    pub(crate) fn judge_name(&self, name: &str, sha256: &str, grant: &Grant) -> Result<(), Failure> {
        let scope = granted(grant)?;
        check_name(name)?;
        let denied = |rule: String, message: String| Failure::Denied { capability: "scripts".into(), rule, message };
        let named = scope.require("scripts.names", |s| s.names.match_any(name));
        named.map_err(|refused| denied(refused.rule, format!("script {name}")))?;
        let owner = policy(scope);
        // A release may ask for names; which bytes may run is the policy's word alone.
        let pinned = |s: &ScriptsScope| {
            let asked = owner.is_some_and(|p| std::ptr::eq(p, s));
            !asked || s.pins.get(name).is_some_and(|pin| pin == sha256)
        };
        let pinned = scope.require("scripts.pins", pinned);
        pinned.map_err(|refused| denied(refused.rule, format!("script {name} with the digest {sha256:.64}")))
    }
}
