//! Which plugins may run here: bytes that a release key signed, within the host owner's
//! policy, for this host API, and exporting exactly the verbs that were signed. An
//! [`AdmittedPlugin`] is the proof; nothing else can be made active.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use viworks_signing::grant::Grant;
use viworks_signing::keys::PublicKey;
use viworks_signing::release::{Limits, Release, Verb as SignedVerb};
use viworks_signing::verify::{self, Refusal, VerifiedRelease};
use wasmtime::component::Type;

use crate::config::Policy;
use crate::runtime::{Prepared, Verb};

/// The `viworks:gateway` version that this gateway offers: major, minor.
pub const HOST_API: (u32, u32) = (1, 0);

/// What this host's owner decided: who may release, and what at most.
#[derive(Debug, Clone)]
pub struct Rules {
    pub release_keys: Vec<PublicKey>,
    pub policy: Policy,
}

/// A release that is signed and fits this host, but was not compiled yet.
#[derive(Debug)]
pub struct Vouched {
    verified: VerifiedRelease,
    grant: Arc<Grant>,
    limits: Limits,
}

/// A plugin that may run here. Made by [`Vouched::admit`] alone.
#[derive(Debug)]
pub struct AdmittedPlugin {
    vouched: Vouched,
    prepared: Prepared,
}

#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("the release is refused ({})", .0.code())]
    Refused(#[from] Refusal),
    #[error("it needs viworks:gateway {wanted}, and this gateway has {}.{}", HOST_API.0, HOST_API.1)]
    HostApi { wanted: String },
    #[error("verb {verb} is signed but not exported")]
    NotExported { verb: String },
    #[error("verb {verb} is exported but not signed")]
    NotSigned { verb: String },
    #[error("verb {verb}: {what} differ from what was signed")]
    Differs { verb: String, what: &'static str },
}

impl AdmitError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::HostApi { .. } => "E_HOST_API",
            Self::NotExported { .. } | Self::NotSigned { .. } | Self::Differs { .. } => "E_VERBS",
        }
    }
}

impl Vouched {
    /// Check who signed `component` and what this host leaves of its requests. `plugin`:
    /// the id that was offered, if one was. `now`: the time to judge by.
    ///
    /// # Errors
    /// The first check that refuses.
    pub fn check(
        component: &[u8],
        statements: &str,
        rules: &Rules,
        plugin: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, AdmitError> {
        let verified = verify::verify(component, statements, &rules.release_keys, plugin, now)?;
        let release = verified.release();
        if !host_api_fits(&release.host_api) {
            return Err(AdmitError::HostApi { wanted: release.host_api.clone() });
        }
        let grant = Arc::new(Grant::of(&release.capabilities, [], &rules.policy.scopes));
        let limits = release.limits.min(rules.policy.limits);
        Ok(Self { verified, grant, limits })
    }

    #[must_use]
    pub fn release(&self) -> &Release {
        self.verified.release()
    }

    #[must_use]
    pub fn digest(&self) -> &str {
        self.verified.digest()
    }

    #[must_use]
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// The last check: what was compiled from these bytes exports what was signed.
    ///
    /// # Errors
    /// The first verb that is missing, too many or different.
    pub fn admit(self, prepared: Prepared) -> Result<AdmittedPlugin, AdmitError> {
        let signed = &self.release().verbs;
        if let Some(verb) = prepared.verbs().keys().find(|verb| !signed.contains_key(*verb)) {
            return Err(AdmitError::NotSigned { verb: verb.clone() });
        }
        for (name, verb) in signed {
            let real = prepared.verbs().get(name).ok_or_else(|| AdmitError::NotExported { verb: name.clone() })?;
            same(verb, real).map_err(|what| AdmitError::Differs { verb: name.clone(), what })?;
        }
        Ok(AdmittedPlugin { vouched: self, prepared })
    }
}

impl AdmittedPlugin {
    #[must_use]
    pub fn release(&self) -> &Release {
        self.vouched.release()
    }

    /// Lowercase hex SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.vouched.digest()
    }

    /// Key ids of the release keys that signed.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        self.vouched.verified.signers()
    }

    /// Its request ∩ this host's policy.
    #[must_use]
    pub fn grant(&self) -> &Arc<Grant> {
        &self.vouched.grant
    }

    /// The lesser of the release's and the policy's.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.vouched.limits
    }

    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }
}

fn host_api_fits(wanted: &str) -> bool {
    let fits = || {
        let (major, minor) = wanted.split_once('.')?;
        Some(major.parse::<u32>().ok()? == HOST_API.0 && minor.parse::<u32>().ok()? <= HOST_API.1)
    };
    fits() == Some(true)
}

/// Names, what may be left out, and the JSON type of each argument. The digest binds the
/// signed schemas to these bytes already; this catches a signer whose tools read the
/// component differently than this gateway.
fn same(signed: &SignedVerb, real: &Verb) -> Result<(), &'static str> {
    if signed.function != real.function {
        return Err("its function's name");
    }
    let empty = serde_json::Map::new();
    let properties = signed.args["properties"].as_object().unwrap_or(&empty);
    let required: Vec<&str> =
        signed.args["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if properties.len() != real.params.len() {
        return Err("its arguments");
    }
    for param in &real.params {
        let schema = properties.get(&param.name).ok_or("its arguments")?;
        let optional = matches!(param.ty, Type::Option(_));
        if optional == required.contains(&param.name.as_str()) {
            return Err("the arguments that it requires");
        }
        let kind = match &schema["type"] {
            Value::String(kind) => Some(kind.as_str()),
            Value::Array(kinds) => kinds.first().and_then(Value::as_str),
            _ => None,
        };
        if kind.is_some_and(|kind| kind != json_type(&param.ty)) {
            return Err("the types of its arguments");
        }
    }
    Ok(())
}

/// The JSON type of a WIT type; `any` where there are several.
fn json_type(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "boolean",
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 => "integer",
        Type::Float32 | Type::Float64 => "number",
        Type::Char | Type::String | Type::Enum(_) => "string",
        Type::List(list) if list.ty() == Type::U8 => "string",
        Type::List(_) | Type::Tuple(_) | Type::Flags(_) => "array",
        Type::Record(_) => "object",
        Type::Option(option) => json_type(&option.ty()),
        _ => "any",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_or_equal_minor_of_the_same_major_fits() {
        assert!(host_api_fits("1.0"));
        for bad in ["1.1", "2.0", "0.9", "1", "1.0.0", "", "1.x"] {
            assert!(!host_api_fits(bad), "{bad}");
        }
    }
}
