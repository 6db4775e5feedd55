//! The host owner's policy: what plugins may do on this host at most, and what one
//! invocation may use at most. What it does not name is not allowed.

use std::path::Path;

use serde::Deserialize;
use viworks_signing::grant::Scopes;
use viworks_signing::release::Limits;

use super::fault::Faults;

#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub scopes: Scopes,
    /// Ceilings: a release's own limits apply below them.
    pub limits: Limits,
}

/// The ceilings where the policy sets none. Enough for guests in every language we know.
const CEILINGS: Limits =
    Limits { memory_mib: 128, cpu_ms: 10_000, host_calls: 100_000, output_kib: 1_024, log_kib: 256, instances: 100 };

/// A result and its log must fit a frame, whatever the policy says.
const MAX_OUTPUT_KIB: u32 = 1_024;
const MAX_LOG_KIB: u32 = 512;

impl Default for Policy {
    fn default() -> Self {
        Self { scopes: Scopes::default(), limits: CEILINGS }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    capabilities: Scopes,
    limits: Ceilings,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Ceilings {
    memory_mib: Option<u32>,
    cpu_ms: Option<u32>,
    host_calls: Option<u32>,
    output_kib: Option<u32>,
    log_kib: Option<u32>,
    instances: Option<u32>,
}

impl Policy {
    /// Read a policy file; what is wrong with it becomes a fault of the key `policy`.
    pub(super) fn load(path: &Path, faults: &mut Faults) -> Self {
        let fault = |faults: &mut Faults, problem: String, mend: &str| {
            faults.add("policy", path.display(), problem, mend);
            Self::default()
        };
        let Some(text) = super::files::read_shared("policy", path, faults) else { return Self::default() };
        let file: File = match toml::from_str(&text) {
            Ok(file) => file,
            Err(e) => return fault(faults, format!("is not a policy: {}", e.to_string().trim()), "correct that place"),
        };
        if let Some(scripts) = &file.capabilities.scripts {
            for (name, pin) in &scripts.pins {
                if pin.len() != 64 || !pin.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    let problem = format!("the pin of script {name:?} is not a SHA-256 in lowercase hex: {pin:?}");
                    fault(faults, problem, "pin what `sha256sum` prints for the file");
                }
            }
        }
        if file.capabilities.accounts.as_ref().map(|a| a.uids).is_some_and(|u| u.min > u.max || u.min < 1_000) {
            fault(
                faults,
                "capabilities.accounts.uids is empty or reaches below 1000".into(),
                "set min ≥ 1000, max ≥ min",
            );
        }
        let limits = file.limits;
        let mut limit = |name: &str, value: Option<u32>, default: u32, most: u32| match value {
            Some(value) if value == 0 || value > most => {
                let problem = format!("limits.{name} = {value} is not from 1 to {most}");
                fault(faults, problem, "set it within the bounds, or remove it");
                default
            }
            other => other.unwrap_or(default),
        };
        let limits = Limits {
            memory_mib: limit("memory_mib", limits.memory_mib, CEILINGS.memory_mib, 4_096),
            cpu_ms: limit("cpu_ms", limits.cpu_ms, CEILINGS.cpu_ms, 3_600_000),
            host_calls: limit("host_calls", limits.host_calls, CEILINGS.host_calls, 10_000_000),
            output_kib: limit("output_kib", limits.output_kib, CEILINGS.output_kib, MAX_OUTPUT_KIB),
            log_kib: limit("log_kib", limits.log_kib, CEILINGS.log_kib, MAX_LOG_KIB),
            instances: limit("instances", limits.instances, CEILINGS.instances, 1_000),
        };
        Self { scopes: file.capabilities, limits }
    }
}
