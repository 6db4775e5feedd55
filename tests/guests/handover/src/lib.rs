//! Hands a secret of the host to a script: what it holds itself is a handle.

use exports::viworks::handover::verbs::Guest;
use viworks_sdk::scripts::{self, SecretVariable};
use viworks_sdk::{Result, secrets};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:handover/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/scripts@1.0.0": viworks_sdk::scripts,
        "viworks:gateway/secrets@1.0.0": viworks_sdk::secrets,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn hand_over(script: String, secret: String) -> Result<String> {
        let token = SecretVariable { variable: "TOKEN".into(), secret: secrets::open(&secret)? };
        let output = scripts::run_with_secrets(&script, &[], &[token])?;
        Ok(format!("{}{}", output.stdout, output.stderr))
    }
}

export!(Plugin);
