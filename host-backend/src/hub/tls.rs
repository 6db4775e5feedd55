//! TLS of the agents' port: TLS 1.3, client certificates checked against the agents' own
//! authorities and their revocation lists, no resumption. Files that changed are read
//! again; what can't be read leaves the old ones in force.

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} can't be read as PEM")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{path} holds no {what}")]
    Empty { path: PathBuf, what: &'static str },
    #[error("{path} holds a revocation list that can't be parsed")]
    Crl { path: PathBuf },
    #[error("the client authorities or their revocation lists can't be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the server's certificate and key can't be used")]
    Server(#[source] rustls::Error),
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
    pub crl: Option<PathBuf>,
}

/// Issuer's name and serial number.
type Revoked = HashSet<(Box<[u8]>, Box<[u8]>)>;

#[derive(Debug)]
struct Material {
    config: Arc<ServerConfig>,
    /// What judges clients, for those whose handshake a proxy makes.
    clients: Arc<dyn ClientCertVerifier>,
    revoked: Revoked,
    /// When the server's certificate ends.
    not_after_ms: Option<u64>,
}

#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: RwLock<Arc<Material>>,
    stamp: Mutex<Vec<Option<(SystemTime, u64)>>>,
}

impl Tls {
    /// # Errors
    /// Says which file, and what is wrong with it.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        // Stamped first: a change while they are read is seen at the next look.
        let stamp = files.stamp();
        let material = files.read()?;
        Ok(Self { files, current: RwLock::new(Arc::new(material)), stamp: Mutex::new(stamp) })
    }

    /// What the next handshake uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.material().config.clone()
    }

    /// When the port's own certificate ends: Unix milliseconds.
    pub(crate) fn not_after_ms(&self) -> Option<u64> {
        self.material().not_after_ms
    }

    /// Judge a client certificate as a handshake here would: authority, validity, use,
    /// revocation. That the client holds its key, whoever made the handshake has to know.
    ///
    /// # Errors
    /// What a handshake would end with.
    pub(crate) fn verify_client(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        self.material().clients.verify_client_cert(certificate, &[], UnixTime::now()).map(drop)
    }

    /// Whether a certificate that was good at its handshake has been revoked since.
    pub(crate) fn is_revoked(&self, identity: &Identity) -> bool {
        self.material().revoked.contains(&(identity.issuer.clone(), identity.serial.clone()))
    }

    /// Read the files again if any changed; answers whether it did.
    ///
    /// # Errors
    /// As [`Tls::load`]; the old material stays, and the next look tries again.
    pub(crate) fn renew(&self) -> Result<bool, TlsError> {
        let stamp = self.files.stamp();
        if *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) == stamp {
            return Ok(false);
        }
        let material = Arc::new(self.files.read()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = material;
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(true)
    }

    fn material(&self) -> Arc<Material> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Files {
    /// Modification time and length of each: both, for files that are replaced quickly.
    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        [Some(&self.cert), Some(&self.key), Some(&self.client_ca), self.crl.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| std::fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok())
            .collect()
    }

    fn read(&self) -> Result<Material, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.client_ca)? {
            roots.add(ca).map_err(TlsError::Server)?;
        }
        let crls = match &self.crl {
            None => Vec::new(),
            Some(path) => CertificateRevocationListDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|source| TlsError::Pem { path: path.clone(), source })?,
        };
        if let (Some(path), []) = (&self.crl, &crls[..]) {
            // An emptied file must not let revoked agents in.
            return Err(TlsError::Empty { path: path.clone(), what: "revocation list" });
        }
        let mut revoked = Revoked::new();
        for der in &crls {
            let path = || self.crl.clone().unwrap_or_default();
            let (_, crl) = CertificateRevocationList::from_der(der).map_err(|_| TlsError::Crl { path: path() })?;
            let issuer: Box<[u8]> = crl.issuer().as_raw().into();
            revoked.extend(crl.iter_revoked_certificates().map(|r| (issuer.clone(), r.raw_serial().into())));
        }
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated();
        if !crls.is_empty() {
            // Of an agent's certificate the status must be known; authorities are ours to list.
            verifier = verifier.with_crls(crls).only_check_end_entity_revocation();
        }
        let verifier = verifier.build().map_err(TlsError::Verifier)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| TlsError::Pem { path: self.key.clone(), source })?;
        let chain = certificates(&self.cert)?;
        let not_after_ms = chain.first().and_then(|der| not_after_ms(der));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Server)?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)
            .map_err(TlsError::Server)?;
        // A session lasts for days: resumption would only cost memory, and outlive revocation.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Material { config: Arc::new(config), clients: verifier, revoked, not_after_ms })
    }
}

fn not_after_ms(der: &[u8]) -> Option<u64> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    u64::try_from(cert.validity().not_after.timestamp()).ok()?.checked_mul(1_000)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if certs.is_empty() { Err(TlsError::Empty { path: path.to_owned(), what: "certificate" }) } else { Ok(certs) }
}
