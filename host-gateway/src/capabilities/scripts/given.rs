//! Secrets that a script is given: resolved when it starts, and kept out of what it is
//! heard to say.

use super::super::secrets::{Bytes, Provider};
use crate::failure::Failure;

/// One variable of a script's environment.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) variable: String,
    pub(super) name: String,
    pub(super) secret: Bytes,
}

/// Shorter secrets are not looked for in the output: they would be found everywhere.
const MIN: usize = 4;

/// # Errors
/// When a secret is not there (any more), or can't be in an environment.
pub(super) async fn given(secrets: &Provider, variables: &[(String, String)]) -> Result<Vec<Given>, Failure> {
    let mut given = Vec::with_capacity(variables.len());
    for (variable, name) in variables {
        let secret = secrets.resolve(name).await?;
        if secret.reveal().contains(&0) {
            return Err(Failure::Unavailable(format!("secret {name} holds a NUL: no environment can hold it")));
        }
        given.push(Given { variable: variable.clone(), name: name.clone(), secret });
    }
    Ok(given)
}

/// Output as text, with every secret replaced.
pub(super) fn said(output: &[u8], given: &[Given]) -> String {
    let mut bytes = output.to_vec();
    for Given { name, secret, .. } in given {
        let secret = secret.reveal();
        if secret.len() < MIN {
            continue;
        }
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(secret.len()).position(|window| window == secret) {
            let shown = format!("[secret {name}]");
            bytes.splice(at + found..at + found + secret.len(), shown.bytes());
            at += found + shown.len();
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
