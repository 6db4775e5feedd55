//! `viworks-sign cosign`: one more signature on a release, where several must agree and
//! their keys are not in one place. Refuses a bundle that does not verify.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use std::path::PathBuf;
use viworks_signing::dsse::{Envelope, MAX_SIGNATURES, Signature, pae};
use viworks_signing::publish;
use viworks_signing::release::PAYLOAD_TYPE;
use viworks_signing::trust::{Role, Trust};

use super::bundle::{Bundle, public_keys};
use super::keyref::Password;
use super::{Error, Exit, files, output};

/// Add a signature to a release that others signed; its reviews stay valid.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign cosign dist/accounts.wasm --plugin accounts --release-key keys/first.pub.pem --key file:keys/second.key.pem")]
pub(crate) struct Cosign {
    /// The component; its statements are beside it
    component: PathBuf,
    /// The plugin that this has to be
    #[arg(long, value_name = "ID")]
    plugin: String,
    /// File of public keys (PEM) that signed already; may be given several times
    #[arg(long, value_name = "PUB", required = true)]
    release_key: Vec<PathBuf>,
    /// Private key: file:PATH, a path, env:VAR or a pkcs11: URI
    #[arg(long = "key", value_name = "REF", required = true)]
    keys: Vec<String>,
    /// The statements, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
}

impl Cosign {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let trusted = public_keys(&self.release_key)?;
        let (bundle, verified) =
            Bundle::verified(&self.component, self.statements.as_deref(), &Trust::any_of(&trusted), &self.plugin)?;
        let signers = self.password.signers(&self.keys)?;
        let publish = |source| Error::Publish { path: self.component.clone(), source };

        let mut lines = Vec::new();
        for line in bundle.statements.lines() {
            let envelope: Option<Envelope> = serde_json::from_str(line).ok();
            let payload = envelope.as_ref().and_then(|e| STANDARD.decode(&e.payload).ok()).unwrap_or_default();
            let Some(mut envelope) = envelope.filter(|_| digest(&payload) == verified.payload_digest()) else {
                lines.push(format!("{line}\n"));
                continue;
            };
            let message = pae(PAYLOAD_TYPE, &payload);
            for key in &signers {
                let keyid = key.public().id();
                envelope.signatures.retain(|signature| signature.keyid != keyid);
                let sig = key.sign(&message).map_err(|source| publish(source.into()))?;
                envelope.signatures.push(Signature { keyid, sig: STANDARD.encode(sig) });
            }
            if envelope.signatures.len() > MAX_SIGNATURES {
                return Err(publish(publish::Error::Keys { count: envelope.signatures.len() }));
            }
            let line = serde_json::to_string(&envelope).map_err(|source| publish(publish::Error::Encode(source)))?;
            lines.push(line + "\n");
        }
        let bundle = Bundle { statements: lines.concat(), ..bundle };
        let all = trusted.iter().copied().chain(signers.iter().map(|key| key.public()));
        let signed = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        let trust = Role::new(signed, all).ok().and_then(|role| Trust::new(role, Role::default()).ok());
        let trust = trust.unwrap_or_else(|| Trust::any_of(&trusted));
        let verified = bundle.verify(&trust, &self.plugin).map_err(|source| Error::Unverified { source })?;
        files::replace(&bundle.path, bundle.statements.as_bytes())?;
        output::lines([
            format!("signed    {} {}", verified.release().plugin, verified.release().version),
            format!("statement {}", bundle.path.display()),
            format!("key ids   {}", verified.signers().join(", ")),
        ])?;
        Ok(Exit::Done)
    }
}

fn digest(payload: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(Sha256::digest(payload))
}
