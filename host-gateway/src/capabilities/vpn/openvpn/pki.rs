//! The site's certification authority as far as VPN users need it: client certificates
//! and the revocation list (RFC 5280). Refuses a key that isn't the certificate's, a list
//! that the authority didn't sign, and keys that everybody may read.

use std::path::Path;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevocationReason,
    RevokedCertParams, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use super::super::files;
use super::super::name::PeerName;
use super::Serial;
use crate::failure::Failure;

/// Clocks of clients may be this slow.
const SLACK: Duration = Duration::minutes(10);

/// A new private key (PKCS#8 PEM) and its public key (SubjectPublicKeyInfo PEM), P-256.
///
/// # Errors
/// `unavailable` when no key can be made.
pub(in super::super) fn key_pair() -> Result<(Zeroizing<String>, String), Failure> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|e| Failure::Unavailable(format!("no key can be made: {e}")))?;
    Ok((Zeroizing::new(pair.serialize_pem()), pair.public_key_pem()))
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// The certificate and its chain, as clients trust them.
    pub(super) chain_pem: String,
}

impl Authority {
    pub(super) fn load(cert: &Path, key: &Path) -> Result<Self, Failure> {
        let bad = |path: &Path, why: &str| Failure::Unavailable(format!("{} {why}", path.display()));
        let cert_file = files::read_existing(cert)?;
        let key_file = files::read_existing(key)?;
        if key_file.mode().is_some_and(|mode| mode & 0o007 != 0) {
            return Err(bad(key, "may be used by everybody: chmod 0600"));
        }
        let key_text = std::str::from_utf8(&key_file.bytes).map_err(|_| bad(key, "is not PEM"))?;
        let pair = KeyPair::from_pem(key_text).map_err(|_| {
            bad(key, "is not an unencrypted PKCS#8 key: convert it with `openssl pkcs8 -topk8 -nocrypt`")
        })?;
        let chain_pem = armoured(&cert_file.bytes, "CERTIFICATE").ok_or_else(|| bad(cert, "holds no certificate"))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain_pem.as_bytes())
            .map_err(|_| bad(cert, "holds no readable certificate"))?;
        let der = CertificateDer::from(pem.contents);
        let parsed = x509(&der).ok_or_else(|| bad(cert, "holds no readable certificate"))?;
        if !parsed.is_ca() {
            return Err(bad(cert, "is not a certification authority's certificate"));
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(bad(key, "is not the key of the authority's certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|_| bad(cert, "can't be used to sign"))?;
        Ok(Self { issuer, der, chain_pem })
    }

    /// A client certificate in PEM, and when it ends.
    pub(super) fn issue(
        &self,
        name: &PeerName,
        serial: &Serial,
        public_key: &str,
        days: u16,
    ) -> Result<(String, OffsetDateTime), Failure> {
        let failed = |e: rcgen::Error| Failure::Failed(format!("the certificate can't be made: {e}"));
        let key = SubjectPublicKeyInfo::from_pem(public_key)
            .map_err(|_| Failure::InvalidArgument("the public key is not a PEM SubjectPublicKeyInfo".into()))?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.serial_number = Some(SerialNumber::from_slice(&serial.bytes()));
        params.not_before = now - SLACK;
        params.not_after = now + Duration::days(days.into());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let expires = params.not_after;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        // A subject that can't be encoded just as the authority has it (two units of one
        // kind, say) would give a certificate that no server takes.
        let good = x509(certificate.der()).zip(x509(&self.der)).is_some_and(|(made, authority)| {
            made.issuer().as_raw() == authority.subject().as_raw()
                && made.verify_signature(Some(authority.public_key())).is_ok()
        });
        if !good {
            return Err(Failure::Unavailable("the authority's subject has a form that can't be issued from".into()));
        }
        Ok((certificate.pem(), expires))
    }

    /// The next revocation list in PEM: what `old` had, less `serial`, plus `serial` again
    /// when `revoke`. `None` where `old` says that already.
    pub(super) fn next_list(
        &self,
        old: &[u8],
        serial: &Serial,
        revoke: bool,
        days: u16,
    ) -> Result<Option<String>, Failure> {
        let mut list = if old.trim_ascii().is_empty() { List::default() } else { self.read_list(old)? };
        let bytes = serial.bytes();
        let listed = list.revoked.iter().any(|r| stripped(r.serial_number.as_ref()) == stripped(&bytes));
        if listed == revoke && !old.is_empty() {
            return Ok(None);
        }
        let now = OffsetDateTime::now_utc();
        list.revoked.retain(|r| stripped(r.serial_number.as_ref()) != stripped(&bytes));
        if revoke {
            list.revoked.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let failed = |e: rcgen::Error| Failure::Unavailable(format!("the revocation list can't be signed: {e}"));
        let params = CertificateRevocationListParams {
            this_update: now - SLACK,
            next_update: now + Duration::days(days.into()),
            crl_number: SerialNumber::from_slice(&incremented(list.number)),
            issuing_distribution_point: None,
            revoked_certs: list.revoked,
            key_identifier_method: self.key_identifier(),
        };
        params.signed_by(&self.issuer).and_then(|crl| crl.pem()).map(Some).map_err(failed)
    }

    /// The authority's own subject key identifier: readers of a list find their authority
    /// by it (RFC 5280 §5.2.1).
    fn key_identifier(&self) -> KeyIdMethod {
        let certificate = x509(&self.der);
        let found = certificate.iter().flat_map(|c| c.extensions()).find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        found.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
    }

    fn read_list(&self, bytes: &[u8]) -> Result<List, Failure> {
        let bad = |why: &str| Failure::Unavailable(format!("the revocation list {why}"));
        let (_, pem) = x509_parser::pem::parse_x509_pem(bytes).map_err(|_| bad("is not PEM"))?;
        let (_, crl) =
            CertificateRevocationList::from_der(&pem.contents).map_err(|_| bad("can't be read as one (RFC 5280)"))?;
        let authority = x509(&self.der).ok_or_else(|| bad("can't be compared with its authority"))?;
        crl.verify_signature(authority.public_key()).map_err(|_| bad("is not signed by the authority"))?;
        let revoked = crl
            .iter_revoked_certificates()
            .map(|entry| RevokedCertParams {
                serial_number: SerialNumber::from_slice(entry.raw_serial()),
                revocation_time: entry.revocation_date.to_datetime(),
                reason_code: entry.reason_code().and_then(|(_, code)| reason(code.0)),
                invalidity_date: entry.invalidity_date().map(|(_, at)| at.to_datetime()),
            })
            .collect();
        let number = crl.crl_number().map(|n| n.to_bytes_be()).unwrap_or_default();
        Ok(List { revoked, number })
    }
}

#[derive(Default)]
struct List {
    revoked: Vec<RevokedCertParams>,
    number: Vec<u8>,
}

fn x509(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// All PEM blocks of that label, without what stands around them.
pub(super) fn armoured(bytes: &[u8], label: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut blocks = String::new();
    let mut rest = &*text;
    while let Some(start) = rest.find(&begin) {
        let stop = rest[start..].find(&end)? + start + end.len();
        blocks += &rest[start..stop].replace('\r', "");
        blocks.push('\n');
        rest = &rest[stop..];
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=- \n".contains(&b);
    (!blocks.is_empty() && blocks.bytes().all(plain)).then_some(blocks)
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}

fn incremented(mut number: Vec<u8>) -> Vec<u8> {
    for byte in number.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return number;
        }
    }
    number.insert(0, 1);
    number
}

fn reason(code: u8) -> Option<RevocationReason> {
    Some(match code {
        1 => RevocationReason::KeyCompromise,
        2 => RevocationReason::CaCompromise,
        3 => RevocationReason::AffiliationChanged,
        4 => RevocationReason::Superseded,
        5 => RevocationReason::CessationOfOperation,
        6 => RevocationReason::CertificateHold,
        8 => RevocationReason::RemoveFromCrl,
        9 => RevocationReason::PrivilegeWithdrawn,
        10 => RevocationReason::AaCompromise,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
