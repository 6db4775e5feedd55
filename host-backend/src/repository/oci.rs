//! Bundles from OCI registries: a component as `wkg` lays it out, and its statements as
//! artifacts that refer to it. A registry is transport: what comes from it is verified like
//! any upload. Refuses registries that the configuration does not name, and more bytes than
//! a bundle may have.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use viworks_signing::oci::{BUNDLE, COMPONENT_LAYER};
use viworks_signing::verify::{MAX_COMPONENT, MAX_LINES, MAX_STATEMENTS};

/// For a whole pull.
const PULLED_WITHIN: Duration = Duration::from_secs(60);
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How one registry is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// HTTP, for a registry on this machine or behind a tunnel.
    pub plain_http: bool,
    pub username: Option<String>,
    /// A file with the password, read at each pull.
    pub password_file: Option<PathBuf>,
}

/// The registries that bundles may be pulled from, by `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, Default)]
pub struct Registries(Arc<BTreeMap<String, Registry>>);

/// A bundle as it came, not verified.
#[derive(Debug)]
pub struct Pulled {
    pub component: Bytes,
    pub statements: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error("{0:?} is not oci://HOST/NAME:TAG")]
    Reference(String),
    #[error("the registry {found:?} is not configured; {}", listed(.known))]
    Registry { found: String, known: Vec<String> },
    #[error("the registry's password can't be read")]
    Password(#[source] std::io::Error),
    #[error("the registry did not give {what}")]
    Pull { what: &'static str, source: Box<OciDistributionError> },
    #[error("{0}")]
    Artifact(&'static str),
    #[error("more than {max} bytes of {what}")]
    Size { what: &'static str, max: usize },
    #[error("the registry took longer than {} s", PULLED_WITHIN.as_secs())]
    Timeout,
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "none is".to_owned() } else { format!("these are: {}", known.join(", ")) }
}

impl OciError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference(_) => "E_OCI_REFERENCE",
            Self::Registry { .. } | Self::Password(_) => "E_OCI_REGISTRY",
            Self::Pull { .. } | Self::Timeout => "E_OCI_PULL",
            Self::Artifact(_) => "E_OCI_ARTIFACT",
            Self::Size { .. } => "E_OCI_SIZE",
        }
    }
}

impl Registries {
    #[must_use]
    pub fn new(registries: BTreeMap<String, Registry>) -> Self {
        Self(Arc::new(registries))
    }

    /// Pull a bundle.
    ///
    /// # Errors
    /// Says which part is missing, too large or not what a bundle has.
    pub async fn pull(&self, reference: &str) -> Result<Pulled, OciError> {
        let image: Reference = reference
            .strip_prefix("oci://")
            .and_then(|rest| rest.parse().ok())
            .ok_or_else(|| OciError::Reference(reference.to_owned()))?;
        let Some(registry) = self.0.get(image.registry()) else {
            let known = self.0.keys().cloned().collect();
            return Err(OciError::Registry { found: image.registry().to_owned(), known });
        };
        let (client, auth) = (registry.client(), registry.auth()?);
        tokio::time::timeout(PULLED_WITHIN, pull(&client, &image, &auth)).await.unwrap_or(Err(OciError::Timeout))
    }
}

impl Registry {
    fn client(&self) -> Client {
        // The whole process speaks TLS by this provider; a second try to say so changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(ClientConfig {
            protocol: if self.plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECTED_WITHIN),
            read_timeout: Some(CONNECTED_WITHIN),
            user_agent: "viworks-backend",
            ..ClientConfig::default()
        })
    }

    fn auth(&self) -> Result<RegistryAuth, OciError> {
        let Some(username) = &self.username else { return Ok(RegistryAuth::Anonymous) };
        let password = match &self.password_file {
            Some(file) => std::fs::read_to_string(file).map_err(OciError::Password)?.trim().to_owned(),
            None => String::new(),
        };
        Ok(RegistryAuth::Basic(username.clone(), password))
    }
}

async fn pull(client: &Client, image: &Reference, auth: &RegistryAuth) -> Result<Pulled, OciError> {
    let failed = |what| move |source| OciError::Pull { what, source: Box::new(source) };
    let (manifest, digest) = client.pull_manifest(image, auth).await.map_err(failed("the manifest"))?;
    let OciManifest::Image(manifest) = manifest else { return Err(OciError::Artifact("an index, not an artifact")) };
    let mut layers = manifest.layers.iter().filter(|layer| layer.media_type == COMPONENT_LAYER);
    let (Some(layer), None) = (layers.next(), layers.next()) else {
        return Err(OciError::Artifact("not one layer of the type application/wasm"));
    };
    let component = blob(client, image, layer, "the component", MAX_COMPONENT).await?;

    let (registry, name) = (image.registry().to_owned(), image.repository().to_owned());
    let subject = Reference::with_digest(registry.clone(), name.clone(), digest.clone());
    let referrers = client.pull_referrers(&subject, Some(BUNDLE)).await.map_err(failed("the referrers"))?;
    let mut statements = String::new();
    let bundles = referrers.manifests.iter().filter(|m| m.artifact_type.as_deref() == Some(BUNDLE));
    for entry in bundles.take(MAX_LINES) {
        let at = Reference::with_digest(registry.clone(), name.clone(), entry.digest.clone());
        let (bundle, _) = client.pull_manifest(&at, auth).await.map_err(failed("a statement's manifest"))?;
        let OciManifest::Image(bundle) = bundle else { continue };
        if bundle.subject.as_ref().is_none_or(|subject| subject.digest != digest) {
            continue;
        }
        for layer in bundle.layers.iter().take(MAX_LINES) {
            let bytes = blob(client, &at, layer, "a statement", MAX_STATEMENTS).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| OciError::Artifact("a statement is not UTF-8"))?;
            for line in text.lines().filter(|line| !line.is_empty()) {
                statements.push_str(line);
                statements.push('\n');
            }
            if statements.len() > MAX_STATEMENTS {
                return Err(OciError::Size { what: "the statements", max: MAX_STATEMENTS });
            }
        }
    }
    if statements.is_empty() {
        return Err(OciError::Artifact("no statements refer to the component"));
    }
    Ok(Pulled { component, statements })
}

/// A blob whole, its digest checked by the client, no longer than `max`.
async fn blob(
    client: &Client,
    image: &Reference,
    layer: &OciDescriptor,
    what: &'static str,
    max: usize,
) -> Result<Bytes, OciError> {
    let failed = |source| OciError::Pull { what, source: Box::new(source) };
    let too_large = || OciError::Size { what, max };
    if usize::try_from(layer.size).map_or(true, |size| size > max) {
        return Err(too_large());
    }
    let mut stream = client.pull_blob_stream(image, layer).await.map_err(failed)?;
    let mut bytes = BytesMut::new();
    let read = |source: std::io::Error| failed(OciDistributionError::IoError(source));
    while let Some(chunk) = stream.stream.try_next().await.map_err(read)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > max {
            return Err(too_large());
        }
    }
    Ok(bytes.freeze())
}
