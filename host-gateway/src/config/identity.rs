//! Who this gateway is, and whom it trusts: certificate, private key, trust bundle, pins.
//! Refuses a certificate that the backend could not take for this agent's.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use viworks_protocol::id::AgentId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::backend::Pin;
use super::fault::Faults;
use super::files;

/// What the TLS handshake needs, read and checked.
#[derive(Debug)]
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Arc<RootCertStore>,
    pub pins: Vec<Pin>,
    /// When the certificate ends: Unix seconds.
    pub expires: i64,
}

/// The one cryptography of this program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificate's identity: its one URI name.
#[must_use]
pub fn spiffe_id(agent: &AgentId) -> String {
    format!("spiffe://viworks/agent/{agent}")
}

/// The certificate chain, and the end of the leaf's validity.
pub(super) fn chain(
    path: &Path,
    agent: Option<&AgentId>,
    now: i64,
    faults: &mut Faults,
) -> Option<(Vec<CertificateDer<'static>>, i64)> {
    let text = files::read_shared("cert_path", path, faults)?;
    let mut fault = |problem: String, mend: &str| faults.add("cert_path", path.display(), problem, mend);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect();
    let Some(leaf) = chain.first() else {
        fault("holds no certificate in PEM".into(), "name the agent's certificate, its issuers after it");
        return None;
    };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        fault("the first certificate is not X.509".into(), "name the agent's certificate, its issuers after it");
        return None;
    };
    let (from, until) = (leaf.validity().not_before, leaf.validity().not_after);
    if until.timestamp() <= now {
        fault(format!("expired at {until}"), "have it issued anew");
    } else if from.timestamp() > now {
        fault(format!("is not valid before {from}"), "set the host's clock right, or wait");
    }
    let usage = leaf.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        fault("is not for clients".into(), "have it issued with the extended key usage clientAuth");
    }
    let names = leaf.subject_alternative_name().ok().flatten();
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    if let Some(expected) = agent.map(spiffe_id).filter(|expected| uris != [expected.as_str()]) {
        let problem = format!("is for {uris:?}, not for {expected:?} alone");
        fault(problem, "have it issued for this agent_id, or correct agent_id");
    }
    Some((chain, until.timestamp()))
}

/// The private key.
pub(super) fn key(path: &Path, faults: &mut Faults) -> Option<PrivateKeyDer<'static>> {
    let bytes = files::read_private("key_path", path, faults)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .inspect_err(|_| {
            faults.add("key_path", path.display(), "holds no private key in PEM", "name an unencrypted PKCS#8 file");
        })
        .ok()
}

/// Certificate and key belong together.
pub(super) fn matching(
    path: &Path,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    faults: &mut Faults,
) {
    let mend = "name the key that the certificate was issued for";
    if let Err(e) = rustls::sign::CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider()) {
        let problem = match e {
            rustls::Error::InconsistentKeys(_) => "does not match the certificate".to_owned(),
            other => format!("can't be used: {other}"),
        };
        faults.add("key_path", path.display(), problem, mend);
    }
}

/// The certificates that the backend's must chain to.
pub(super) fn roots(path: &Path, now: i64, faults: &mut Faults) -> Option<RootCertStore> {
    let text = files::read_shared("trust_bundle", path, faults)?;
    let mut roots = RootCertStore::empty();
    let mut fault = |problem: String, mend: &str| faults.add("trust_bundle", path.display(), problem, mend);
    for (n, found) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let Ok(der) = found else {
            fault(format!("certificate {} is malformed", n + 1), "replace it");
            continue;
        };
        match X509Certificate::from_der(&der) {
            Ok((_, ca)) if ca.validity().not_after.timestamp() <= now => {
                fault(format!("certificate {} expired at {}", n + 1, ca.validity().not_after), "replace it");
            }
            Ok((_, ca)) if !ca.is_ca() => {
                fault(format!("certificate {} is not a certificate authority's", n + 1), "replace it");
            }
            Ok(_) => {}
            Err(_) => {
                fault(format!("certificate {} is not X.509", n + 1), "replace it");
                continue;
            }
        }
        if roots.add(der).is_err() {
            fault(format!("certificate {} can't be a root of trust", n + 1), "replace it");
        }
    }
    if roots.is_empty() {
        fault("holds no certificate".into(), "put the certificate of the backend's authority there, in PEM");
        return None;
    }
    Some(roots)
}
