//! The host owner's policy file: read, and what `viworks_signing::policy` finds wrong told
//! as faults of the key `policy`.

use std::path::Path;

use viworks_signing::keys::PublicKey;
use viworks_signing::policy::{Error, Policy, Sources};

use super::fault::Faults;
use super::files;

/// Read a policy. `known`: the keys that it may name by id. With faults, what the rest of
/// the configuration can be checked against.
pub(super) fn load(path: &Path, known: &[PublicKey], faults: &mut Faults) -> Policy {
    let Some(text) = files::read_shared("policy", path, faults) else { return Policy::default() };
    let read = |key: &Path| {
        let mut unread = Faults::default();
        let text = files::read_shared("policy", key, &mut unread);
        let problem = unread.iter().next().map(|fault| fault.problem.clone());
        problem.map_or_else(|| text.ok_or_else(|| "can't be read".to_owned()), Err)
    };
    match Policy::parse(&text, &Sources { known, read: &read }) {
        Ok(policy) => return policy,
        Err(Error::Syntax(error)) => {
            let problem = format!("is not TOML: {}", error.to_string().trim());
            faults.add("policy", path.display(), problem, "correct that place");
        }
        Err(Error::Faults(found)) => {
            for fault in found.0 {
                let problem = format!("{} is {}", fault.key, fault.value);
                faults.add("policy", path.display(), problem, format!("set {}", fault.wanted));
            }
        }
    }
    Policy::default()
}
