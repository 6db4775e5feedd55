//! From a verified client certificate to the agent it names. Refuses a certificate with
//! none, several or other URIs among its subject alternative names.

use viworks_protocol::id::{AgentId, IdError};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::edge::certificate::PassedError;

/// `spiffe://viworks/agent/<id>`, after the SPIFFE ID specification.
const PREFIX: &str = "spiffe://viworks/agent/";

/// What a certificate says. The chain was verified by TLS before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub agent: AgentId,
    /// Serial number, for revocation of live sessions.
    pub serial: Box<[u8]>,
    /// Its issuer's name in DER, so that serials of two authorities differ.
    pub issuer: Box<[u8]>,
    pub not_after_ms: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("no client certificate")]
    Missing,
    #[error("what the proxy passed on")]
    Passed(#[source] PassedError),
    #[error("the certificate that the proxy passed on is not good")]
    Unverified(#[source] rustls::Error),
    #[error("the certificate can't be parsed")]
    Parse,
    #[error("the certificate names {0} URIs, wanted exactly one")]
    Uris(usize),
    #[error("{0:?} is not an agent's URI")]
    Uri(String),
    #[error("the URI's agent id is malformed")]
    Id(#[source] IdError),
}

impl Identity {
    /// # Errors
    /// Says what the certificate lacks.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| IdentityError::Parse)?;
        let mut uris = Vec::new();
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    uris.extend(names.general_names.iter().filter_map(|name| match name {
                        GeneralName::URI(uri) => Some(*uri),
                        _ => None,
                    }));
                }
                ParsedExtension::ParseError { .. } => return Err(IdentityError::Parse),
                _ => {}
            }
        }
        let [uri] = uris[..] else { return Err(IdentityError::Uris(uris.len())) };
        let id = uri.strip_prefix(PREFIX).ok_or_else(|| IdentityError::Uri(uri.to_owned()))?;
        Ok(Self {
            agent: id.parse().map_err(IdentityError::Id)?,
            serial: cert.raw_serial().into(),
            issuer: cert.issuer().as_raw().into(),
            not_after_ms: u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::new(vec!["host.example.com".to_owned()])?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        Ok(params.self_signed(&KeyPair::generate()?)?.der().to_vec())
    }

    #[test]
    fn one_uri_names_the_agent() -> Result<(), rcgen::Error> {
        let found = Identity::from_der(&certificate(&["spiffe://viworks/agent/web-01"])?);
        assert!(found.is_ok_and(|identity| identity.agent.as_str() == "web-01" && identity.not_after_ms > 0));
        Ok(())
    }

    #[test]
    fn anything_else_is_refused() -> Result<(), rcgen::Error> {
        let of = |uris: &[&str]| certificate(uris).map(|der| Identity::from_der(&der));
        assert!(matches!(of(&[])?, Err(IdentityError::Uris(0))));
        let two = of(&["spiffe://viworks/agent/a", "spiffe://viworks/agent/b"])?;
        assert!(matches!(two, Err(IdentityError::Uris(2))));
        assert!(matches!(of(&["spiffe://other/agent/a"])?, Err(IdentityError::Uri(_))));
        assert!(matches!(of(&["spiffe://viworks/agent/a/b"])?, Err(IdentityError::Id(_))));
        assert!(matches!(Identity::from_der(b"no certificate"), Err(IdentityError::Parse)));
        Ok(())
    }
}
