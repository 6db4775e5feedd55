//! One connection to the backend: TCP, TLS 1.3 with this agent's certificate, WebSocket.
//! Refuses a backend whose certificate does not chain to the trust bundle, is not for its
//! name, or does not hold a pinned key: chain *and* pin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, protocol::WebSocketConfig};
use viworks_protocol::frame::MAX_FRAME;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{BackendUrl, Credentials, Pin, provider};

pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// From the first packet to the WebSocket's answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Frames are small; a larger buffer only costs memory.
const BUFFER: usize = 16 * 1024;

/// Makes connections with the same credentials.
#[derive(Debug)]
pub struct Connector {
    url: BackendUrl,
    name: ServerName<'static>,
    /// Other instances of the backend.
    others: Vec<(BackendUrl, ServerName<'static>)>,
    /// Whose turn it is. Gateways begin anywhere, so that a fleet spreads over the instances.
    turn: AtomicUsize,
    tls: Arc<ClientConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the credentials can't be used")]
    Credentials(#[source] rustls::Error),
    #[error("the trust bundle can't be used")]
    Trust(#[source] rustls::client::VerifierBuilderError),
    #[error("{0:?} is no name that a certificate can hold")]
    Name(String),
    #[error("no connection to {0}")]
    Tcp(String, #[source] std::io::Error),
    #[error("no TLS session")]
    Tls(#[source] std::io::Error),
    #[error("no WebSocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    #[error("the backend has no room now ({status})")]
    Busy { status: u16, retry_after: Option<Duration> },
    #[error("no answer in {} seconds", LIMIT.as_secs())]
    Timeout,
}

impl ConnectError {
    /// How long the backend asks to wait before the next attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// An answer that is no upgrade: when it says to come again, that is what it says.
fn refused(error: tungstenite::Error) -> ConnectError {
    let status = match &error {
        tungstenite::Error::Http(answer) => answer.status().as_u16(),
        _ => 0,
    };
    match error {
        tungstenite::Error::Http(answer) if matches!(status, 429 | 503) => {
            let said = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
            // RFC 9110 §10.2.3; dates are nothing that our backend sends.
            let secs = said.and_then(|text| text.trim().parse::<u32>().ok());
            ConnectError::Busy { status, retry_after: secs.map(|secs| Duration::from_secs(secs.into())) }
        }
        other => ConnectError::WebSocket(Box::new(other)),
    }
}

/// The backend's certificate holds none of the pinned keys.
#[derive(thiserror::Error)]
#[error("the backend's key is not pinned: it is sha256/{0}")]
struct NotPinned(String);

/// What rustls shows of an error that is not its own is its debug form.
impl std::fmt::Debug for NotPinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Connector {
    /// # Errors
    /// When the credentials can't be used, which a checked configuration rules out.
    pub fn new(url: &BackendUrl, credentials: &Credentials) -> Result<Self, ConnectError> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(&credentials.roots), provider())
            .build()
            .map_err(ConnectError::Trust)?;
        let verifier = ChainAndPin { chain, pins: credentials.pins.clone() };
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(ConnectError::Credentials)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
            .map_err(ConnectError::Credentials)?;
        // Each session proves both certificates anew.
        tls.resumption = Resumption::disabled();
        let name_of =
            |url: &BackendUrl| ServerName::try_from(url.host.clone()).map_err(|_| ConnectError::Name(url.host.clone()));
        let name = name_of(url)?;
        let others = url.others.iter().map(|url| Ok((url.clone(), name_of(url)?)));
        let others = others.collect::<Result<Vec<_>, ConnectError>>()?;
        let turn = AtomicUsize::new(rand::random_range(0..=others.len()));
        Ok(Self { url: url.clone(), name, others, turn, tls: Arc::new(tls) })
    }

    /// # Errors
    /// The step that failed.
    pub(super) async fn connect(&self) -> Result<Socket, ConnectError> {
        tokio::time::timeout(LIMIT, self.steps()).await.map_err(|_| ConnectError::Timeout)?
    }

    async fn steps(&self) -> Result<Socket, ConnectError> {
        // Whatever becomes of it, the next attempt is another instance's.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        let first = (&self.url, &self.name);
        let (url, name) = turn.checked_sub(1).and_then(|n| self.others.get(n)).map_or(first, |(url, name)| (url, name));
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await;
        let tcp = tcp.map_err(|e| ConnectError::Tcp(format!("{}:{}", url.host, url.port), e))?;
        // Small frames that someone waits for.
        tcp.set_nodelay(true).map_err(ConnectError::Tls)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let tls = connector.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(2 * MAX_FRAME + BUFFER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(url.uri(), tls, Some(config)).await.map_err(refused)?;
        Ok(socket)
    }
}

/// The ordinary verification, and then the pin of the leaf's key.
#[derive(Debug)]
struct ChainAndPin {
    chain: Arc<WebPkiServerVerifier>,
    pins: Vec<Pin>,
}

impl ServerCertVerifier for ChainAndPin {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let pin: Pin = Sha256::digest(parsed.public_key().raw).into();
        if self.pins.contains(&pin) {
            return Ok(verified);
        }
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let unpinned = NotPinned(BASE64_STANDARD.encode(pin));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unpinned)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: Option<&str>) -> ConnectError {
        let mut answer = tungstenite::http::Response::builder().status(status);
        if let Some(text) = retry_after {
            answer = answer.header("Retry-After", text);
        }
        refused(tungstenite::Error::Http(Box::new(answer.body(None).unwrap())))
    }

    #[test]
    fn a_backend_without_room_says_when_to_come_again() {
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!(answered(503, Some("30")).retry_after(), secs(30));
        assert_eq!(answered(429, Some(" 5")).retry_after(), secs(5));
        for odd in [None, Some("soon"), Some("-1"), Some("99999999999")] {
            let error = answered(503, odd);
            assert!(matches!(error, ConnectError::Busy { status: 503, retry_after: None }), "{odd:?}");
        }
        assert!(matches!(answered(403, Some("30")), ConnectError::WebSocket(_)));
    }
}
