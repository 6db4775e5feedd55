//! A throwaway CA for tests: server and client certificates, made in memory. Refuses to
//! be anything but that: keys are never reused between runs.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
    pub serial: Vec<u8>,
    /// `sha256/…` over the SPKI, as gateways pin it.
    pub pin: String,
}

/// A certificate authority that lives as long as the test.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

pub type Result<T> = std::result::Result<T, rcgen::Error>;

impl Ca {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    #[must_use]
    pub fn cert_pem(&self) -> String {
        self.issuer.pem()
    }

    /// For servers that sign with the CA themselves, as an OpenVPN site does.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The backend's certificate for loopback, and for the left end of a [`crate::netns::Wire`].
    pub fn server(&self) -> Result<Identity> {
        self.server_named(&["localhost"])
    }

    /// The same for these names.
    pub fn server_named(&self, names: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        for address in [[127, 0, 0, 1], [192, 0, 2, 1]] {
            params.subject_alt_names.push(SanType::IpAddress(IpAddr::from(address)));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name = common_name("backend");
        self.issue(params)
    }

    /// A backend's certificate that ended an hour ago.
    pub fn expired_server(&self) -> Result<Identity> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() - Duration::hours(1);
        self.issue(params)
    }

    /// A gateway's certificate.
    pub fn agent(&self, id: &str) -> Result<Identity> {
        self.issue(agent_params(id)?)
    }

    /// A gateway's certificate that ended an hour ago.
    pub fn expired_agent(&self, id: &str) -> Result<Identity> {
        let mut params = agent_params(id)?;
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() - Duration::hours(1);
        self.issue(params)
    }

    /// A PEM revocation list over these certificates.
    pub fn crl(&self, revoked: &[&Identity]) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(7),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|identity| RevokedCertParams {
                    serial_number: SerialNumber::from(identity.serial.clone()),
                    revocation_time: now - Duration::hours(1),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer)?.pem()
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let pin = format!("sha256/{}", base64(&Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key))));
        let serial = Sha256::digest(key.serialize_der())[..12].to_vec();
        let serial = [&[1u8][..], &serial].concat();
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem(), serial, pin })
    }
}

fn agent_params(id: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names.push(SanType::URI(format!("spiffe://viworks/agent/{id}").try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name = common_name(id);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
