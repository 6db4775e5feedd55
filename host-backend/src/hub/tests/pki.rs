//! A throwaway authority: certificates for the backend and for agents, and its CRL.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

pub(super) struct Authority {
    pub pem: String,
    pub der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A client certificate and its key, as a TLS client wants them.
pub(super) struct Client {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Client {
    /// As a proxy passes it on: percent-encoded PEM.
    pub(super) fn passed(&self) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(&self.chain[0]);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        pem.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    }
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn client(&self, agent: &str, serial: u64) -> Client {
        self.client_until(agent, serial, OffsetDateTime::now_utc() + Duration::days(1))
    }

    pub(super) fn client_until(&self, agent: &str, serial: u64, not_after: OffsetDateTime) -> Client {
        self.issued(agent, serial, not_after, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issued(&self, agent: &str, serial: u64, not_after: OffsetDateTime, usage: ExtendedKeyUsagePurpose) -> Client {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        let uri = format!("spiffe://viworks/agent/{agent}");
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().expect("a URI")));
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (not_after - Duration::days(2), not_after);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Client { chain: vec![cert.der().clone()], key }
    }

    /// An agent's name on a certificate that is for servers.
    pub(super) fn server_named(&self, agent: &str) -> Client {
        self.issued(agent, 5, OffsetDateTime::now_utc() + Duration::days(1), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Certificate and key of the backend, written as PEM.
    pub(super) fn server(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (cert_path, key_path) = (dir.join("agents.crt.pem"), dir.join("agents.key.pem"));
        std::fs::write(&cert_path, cert.pem()).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        (cert_path, key_path)
    }

    /// A list that revokes these serial numbers, as PEM.
    pub(super) fn crl(&self, serials: &[u64]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}
