//! OpenVPN: client certificates of the site's own authority, an inline profile, revocation
//! by CRL and by ending the live session. Keeps no client's private key.
//!
//! Removing a peer writes the revocation list first and ends its session second, so that
//! it can't come back in between. Where the management socket does not answer, the
//! revocation stands all the same: the call fails with `unavailable` and says that a
//! session may still be up; removing the peer again tries again.

mod database;
mod foresee;
mod management;
mod pki;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use self::management::Management;
pub(super) use self::pki::key_pair;

use self::database::{Database, Entry};
use self::pki::{Authority, armoured};
use super::files;
use super::name::PeerName;
use super::{Issued, Kind, PRIVATE_KEY, Peer, blocking, random, rfc3339};
use crate::failure::{Failure, chain};

/// `[providers.vpn.openvpn]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub ca_cert: PathBuf,
    /// PKCS#8, not encrypted, not readable by everybody.
    pub ca_key: PathBuf,
    /// The server's `crl-verify` file; made when absent.
    pub crl_file: PathBuf,
    /// A directory that exists: holds the index of issued certificates.
    pub database: PathBuf,
    pub remote_host: Word,
    #[serde(default = "default_port")]
    pub remote_port: u16,
    #[serde(default)]
    pub proto: Proto,
    /// The server's `tls-crypt` key, for clients.
    #[serde(default)]
    pub tls_crypt: Option<PathBuf>,
    pub management: Management,
    #[serde(default)]
    pub management_password_file: Option<PathBuf>,
    #[serde(default = "default_cert_days")]
    pub cert_days: u16,
    /// How long a revocation list counts. A server refuses everybody once it has ended,
    /// and only changes renew it.
    #[serde(default = "default_crl_days")]
    pub crl_days: u16,
    /// More lines for clients, for example `cipher AES-256-GCM`.
    #[serde(default)]
    pub client_directives: Vec<Directive>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    #[default]
    Udp,
    Tcp,
}

/// A host name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Word(String);

impl TryFrom<String> for Word {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
        if good { Ok(Self(text)) } else { Err("a remote host is a host name or an address") }
    }
}

/// One line of a client's profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Directive(String);

impl TryFrom<String> for Directive {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good =
            !text.is_empty() && text.len() <= 256 && !text.starts_with('<') && !text.chars().any(char::is_control);
        if good {
            Ok(Self(text))
        } else {
            Err("a client directive is one line of at most 256 bytes, and no inline file")
        }
    }
}

/// A certificate's serial number: 16 random bytes, the first between 0x40 and 0x7f, in
/// lowercase hex (RFC 5280 §4.1.2.2 wants it positive).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

impl TryFrom<String> for Serial {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() == 32 && hex && (b'4'..=b'7').contains(&text.as_bytes()[0]) {
            Ok(Self(text))
        } else {
            Err("a serial is 16 bytes in lowercase hex, the first from 40 to 7f")
        }
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serial {
    pub(super) fn random() -> Result<Self, Failure> {
        let mut bytes = random::<16>()?;
        bytes[0] = (bytes[0] & 0x3f) | 0x40;
        Ok(Self(hex::encode(*bytes)))
    }

    fn bytes(&self) -> Vec<u8> {
        hex::decode(&self.0).unwrap_or_default()
    }
}

fn default_port() -> u16 {
    1194
}

fn default_cert_days() -> u16 {
    365
}

fn default_crl_days() -> u16 {
    3650
}

/// One server's users. Changes run one after the other.
#[derive(Debug)]
pub(super) struct Openvpn {
    config: Arc<Config>,
    changes: tokio::sync::Mutex<()>,
}

impl Openvpn {
    pub(super) fn new(config: &Config) -> Self {
        Self { config: Arc::new(config.clone()), changes: tokio::sync::Mutex::new(()) }
    }

    /// Issue a certificate for that public key.
    pub(super) async fn add(&self, name: &PeerName, serial: &Serial, public_key: &str) -> Result<Issued, Failure> {
        let _one_at_a_time = self.changes.lock().await;
        let config = Arc::clone(&self.config);
        let (name, serial, public_key) = (name.clone(), serial.clone(), public_key.to_owned());
        blocking(move || {
            let authority = Authority::load(&config.ca_cert, &config.ca_key)?;
            let mut db = Database::open(&config.database)?;
            let now = OffsetDateTime::now_utc();
            foresee::adding(&db, &name, &serial, now)?;
            let (certificate, expires) = authority.issue(&name, &serial, &public_key, config.cert_days)?;
            let template = profile(&config, &authority.chain_pem, &certificate)?;
            // A server with `crl-verify` does not start without the list.
            revoke(&config, &authority, &serial, false)?;
            let entry = Entry { name, serial, issued: now, expires, revoked: None, session_may_stand: false };
            let peer = Peer::try_from(&entry)?;
            // Indexed before it is handed out: one that nobody holds does no harm.
            db.entries.push(entry);
            db.save()?;
            Ok(Issued { peer, template })
        })
        .await
    }

    /// Revoke that certificate and end its sessions.
    pub(super) async fn remove(&self, name: &PeerName, serial: &str) -> Result<Peer, Failure> {
        let _one_at_a_time = self.changes.lock().await;
        let serial = Serial::try_from(serial.to_owned()).map_err(|e| Failure::InvalidArgument(e.into()))?;
        let peer = self.revoke(name, &serial).await?;
        self.end_sessions(name).await.map_err(|why| {
            Failure::Unavailable(format!(
                "{name} can't connect any more, but a session that is up may still stand: {why}; \
                 once that is mended, remove {name} again"
            ))
        })?;
        let (config, name) = (Arc::clone(&self.config), name.clone());
        blocking(move || {
            let mut db = Database::open(&config.database)?;
            let of_name = db.entries.iter_mut().filter(|e| e.name == name);
            of_name.for_each(|e| e.session_may_stand = false);
            db.save()
        })
        .await?;
        Ok(peer)
    }

    async fn revoke(&self, name: &PeerName, serial: &Serial) -> Result<Peer, Failure> {
        let config = Arc::clone(&self.config);
        let (name, serial) = (name.clone(), serial.clone());
        blocking(move || {
            let authority = Authority::load(&config.ca_cert, &config.ca_key)?;
            let mut db = Database::open(&config.database)?;
            let entry = db.entry(&name, &serial)?;
            if !entry.active() && !entry.session_may_stand {
                return Err(Failure::NotFound(format!("the certificate {serial} of {name} is revoked already")));
            }
            // Before the list: after a crash in between, removing again does the rest.
            entry.session_may_stand = true;
            let peer = Peer::try_from(&*entry)?;
            db.save()?;
            revoke(&config, &authority, &serial, true)?;
            let entry = db.entry(&name, &serial)?;
            entry.revoked = entry.revoked.or_else(|| Some(OffsetDateTime::now_utc()));
            db.save()?;
            Ok(peer)
        })
        .await
    }

    async fn end_sessions(&self, name: &PeerName) -> Result<(), String> {
        let config = Arc::clone(&self.config);
        let password = match config.management_password_file.clone() {
            None => None,
            Some(path) => {
                let file = blocking(move || Ok(files::read_existing(&path)?)).await.map_err(|e| e.to_string())?;
                Some(file.bytes)
            }
        };
        let password = password.as_ref().map(|p| p.as_slice());
        match config.management.kill(name, password).await {
            Ok(sessions) => {
                tracing::info!(%name, sessions, "ended the sessions of a removed OpenVPN peer");
                Ok(())
            }
            Err(error) => Err(chain(&error)),
        }
    }

    /// Make a revoked certificate valid again.
    pub(super) async fn restore(&self, name: &PeerName, serial: &str) -> Result<Peer, Failure> {
        let _one_at_a_time = self.changes.lock().await;
        let serial = Serial::try_from(serial.to_owned()).map_err(|e| Failure::InvalidArgument(e.into()))?;
        let (config, name) = (Arc::clone(&self.config), name.clone());
        blocking(move || {
            let authority = Authority::load(&config.ca_cert, &config.ca_key)?;
            let mut db = Database::open(&config.database)?;
            foresee::restoring(&db, &name, &serial)?;
            let entry = db.entry(&name, &serial)?;
            (entry.revoked, entry.session_may_stand) = (None, false);
            let peer = Peer::try_from(&*entry)?;
            revoke(&config, &authority, &serial, false)?;
            db.save()?;
            Ok(peer)
        })
        .await
    }
}

/// Put the serial on the revocation list, or take it off; make the list where it is missing.
fn revoke(config: &Config, authority: &Authority, serial: &Serial, revoked: bool) -> Result<(), Failure> {
    let old = files::read(&config.crl_file)?;
    if let Some(pem) = authority.next_list(&old.bytes, serial, revoked, config.crl_days)? {
        // Public, and read by a server that has given up root.
        files::replace(&config.crl_file, &old, pem.as_bytes(), old.mode().unwrap_or(0o644))?;
    }
    Ok(())
}

impl TryFrom<&Entry> for Peer {
    type Error = Failure;

    fn try_from(entry: &Entry) -> Result<Self, Failure> {
        Ok(Self {
            created_at: Some(rfc3339(entry.issued)?),
            expires_at: Some(rfc3339(entry.expires)?),
            ..Self::new(entry.name.clone(), Kind::Openvpn, entry.serial.to_string(), None)
        })
    }
}

/// An inline profile, with [`PRIVATE_KEY`] where that belongs.
fn profile(config: &Config, authority: &str, certificate: &str) -> Result<String, Failure> {
    let proto = match config.proto {
        Proto::Udp => "udp",
        Proto::Tcp => "tcp-client",
    };
    let (host, port) = (&config.remote_host.0, config.remote_port);
    let mut text = format!(
        "client\ndev tun\nproto {proto}\nremote {host} {port}\nresolv-retry infinite\nnobind\npersist-key\npersist-tun\n\
         remote-cert-tls server\nverb 3\n"
    );
    for Directive(line) in &config.client_directives {
        text += line;
        text.push('\n');
    }
    let mut inline = |tag: &str, content: &str| text += &format!("<{tag}>\n{}\n</{tag}>\n", content.trim_end());
    inline("ca", authority);
    inline("cert", certificate);
    inline("key", PRIVATE_KEY);
    if let Some(path) = &config.tls_crypt {
        let file = files::read_existing(path)?;
        let key = armoured(&file.bytes, "OpenVPN Static key V1");
        inline(
            "tls-crypt",
            &key.ok_or_else(|| {
                Failure::Unavailable(format!("{} is not an OpenVPN static key (tls-crypt)", path.display()))
            })?,
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
