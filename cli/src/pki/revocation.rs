//! The revocation list of the CA (RFC 5280, section 5), which is also its only record of
//! what was revoked. Refuses certificates and lists that another CA signed.

use std::path::Path;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::authority::{Authority, der};
use super::{Error, files};
use crate::error::Error as CliError;

/// Nothing here renews a list by itself, so it is good for long.
const VALID: Duration = Duration::days(365);

/// A list with nothing on it, in PEM.
pub(super) fn empty(authority: &Authority) -> Result<String, Error> {
    list(authority, 1, Vec::new())
}

/// Put a certificate on the list in `dir`; how many are on it then. One that is on it
/// already stays with its first date.
pub(super) fn revoke(dir: &Path, cert_path: &Path) -> Result<usize, CliError> {
    let authority = Authority::load(dir)?;
    let ca = authority.cert()?;
    let bytes = der(cert_path, &files::read(cert_path)?)?;
    let (_, cert) = X509Certificate::from_der(&bytes)
        .map_err(|_| Error::Parse { path: cert_path.to_owned(), what: "certificate" })?;
    let ours = cert.issuer() == ca.subject() && cert.verify_signature(Some(ca.public_key())).is_ok();
    if !ours || bytes == ca.as_ref() {
        return Err(Error::Foreign { path: cert_path.to_owned(), dir: dir.to_owned() }.into());
    }

    let crl_path = dir.join("crl.pem");
    let fault = || Error::Parse { path: crl_path.clone(), what: "revocation list" };
    let text = files::read(&crl_path)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| fault())?;
    let (_, old) = CertificateRevocationList::from_der(&pem.contents).map_err(|_| fault())?;
    if old.verify_signature(ca.public_key()).is_err() {
        return Err(Error::Foreign { path: crl_path, dir: dir.to_owned() }.into());
    }
    let number = old.crl_number().and_then(|n| u64::try_from(n).ok()).ok_or_else(fault)?;
    let mut revoked: Vec<RevokedCertParams> = old
        .iter_revoked_certificates()
        .map(|entry| entry_of(entry.raw_serial(), entry.revocation_date.to_datetime()))
        .collect();
    let serial = SerialNumber::from_slice(cert.raw_serial());
    if !revoked.iter().any(|entry| entry.serial_number == serial) {
        revoked.push(entry_of(cert.raw_serial(), OffsetDateTime::now_utc()));
    }
    let count = revoked.len();
    files::public(&crl_path, &list(&authority, number.saturating_add(1), revoked)?, true)?;
    Ok(count)
}

fn entry_of(serial: &[u8], revocation_time: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time,
        reason_code: None,
        invalidity_date: None,
    }
}

fn list(authority: &Authority, number: u64, revoked_certs: Vec<RevokedCertParams>) -> Result<String, Error> {
    let make = |source| Error::Make { what: "revocation list", source };
    let now = OffsetDateTime::now_utc();
    let params = CertificateRevocationListParams {
        this_update: now - Duration::minutes(5),
        next_update: now + VALID,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).and_then(|list| list.pem()).map_err(make)
}
