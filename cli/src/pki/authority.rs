//! The CA: made, loaded, issuing. Certificates follow RFC 5280: P-256 keys, serials from
//! the hash of the fresh key, one purpose each.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Error, files};
use crate::error::Error as CliError;

/// Clocks of hosts that are a little behind accept a new certificate too.
const SKEW: Duration = Duration::minutes(5);

/// A CA with its key.
pub struct Authority {
    cert_pem: String,
    /// DER of the certificate.
    cert: Vec<u8>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate and its key, PEM.
pub(super) struct Issued {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
}

impl Authority {
    /// A new CA, and its key in PEM.
    pub(super) fn create(name: &str, days: u16) -> Result<(Self, String), Error> {
        let make = |source| Error::Make { what: "CA", source };
        let key = KeyPair::generate().map_err(make)?;
        let key_pem = key.serialize_pem();
        let mut params = params(name, days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(make)?;
        let authority = Self { cert_pem: cert.pem(), cert: cert.der().to_vec(), issuer: Issuer::new(params, key) };
        Ok((authority, key_pem))
    }

    /// The CA that `pki init` made in `dir`.
    ///
    /// # Errors
    /// When its files can't be read, or are none of a CA.
    pub fn load(dir: &Path) -> Result<Self, CliError> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key.pem"));
        let cert_pem = files::read(&cert_path)?;
        let cert = der(&cert_path, &cert_pem)?;
        let key = KeyPair::from_pem(&files::read(&key_path)?)
            .map_err(|_| Error::Parse { path: key_path, what: "private key" })?;
        let issuer = Issuer::from_ca_cert_der(&cert.as_slice().into(), key)
            .map_err(|_| Error::Parse { path: cert_path, what: "CA certificate" })?;
        Ok(Self { cert_pem, cert, issuer })
    }

    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub(super) fn cert(&self) -> Result<X509Certificate<'_>, Error> {
        let fault = |_| Error::Parse { path: "ca.pem".into(), what: "certificate" };
        Ok(X509Certificate::from_der(&self.cert).map_err(fault)?.1)
    }

    pub(super) fn issue(
        &self,
        name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        days: u16,
    ) -> Result<Issued, Error> {
        let make = |source| Error::Make { what: "certificate", source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = params(name, days)?;
        // Nobody accepts a certificate that outlives its CA.
        params.not_after = params.not_after.min(self.cert()?.validity().not_after.to_datetime());
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(name: &str, days: u16) -> Result<CertificateParams, Error> {
    let make = |source| Error::Make { what: "certificate", source };
    let mut params = CertificateParams::new(Vec::new()).map_err(make)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + Duration::days(days.into());
    Ok(params)
}

/// The pin of a certificate's public key, as RFC 7469 has it: `sha256/` and base64.
pub(super) fn pin(path: &Path) -> Result<String, CliError> {
    let cert = der(path, &files::read(path)?)?;
    let fault = |_| Error::Parse { path: path.to_owned(), what: "certificate" };
    let (_, cert) = X509Certificate::from_der(&cert).map_err(fault)?;
    Ok(format!("sha256/{}", STANDARD.encode(Sha256::digest(cert.public_key().raw))))
}

/// The first certificate of a PEM file.
pub(super) fn der(path: &Path, pem: &str) -> Result<Vec<u8>, Error> {
    let fault = || Error::Parse { path: path.to_owned(), what: "certificate" };
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| fault())?;
    if pem.label == "CERTIFICATE" { Ok(pem.contents) } else { Err(fault()) }
}
