//! WireGuard: peers in the server's configuration file, applied live with `wg syncconf`.
//! Refuses to touch peers that it didn't write; knows no client's private key.

mod client;
mod conf;
mod foresee;
mod removed;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub(super) use client::{key_pair, qr_svg};

use self::conf::{Conf, ConfError};
use super::files;
use super::name::PeerName;
use super::pool::Cidr;
use super::{Issued, Kind, Peer, blocking, joined, random};
use crate::failure::{Failure, chain};
use crate::process::{Program, first_existing};

/// `[providers.vpn.wireguard]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default = "default_interface")]
    pub interface: InterfaceName,
    /// The server's configuration, for example `/etc/wireguard/wg0.conf`.
    pub config_file: PathBuf,
    /// Where clients find the server: `host:port`.
    pub endpoint: Endpoint,
    /// Resolvers for clients.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Where client addresses come from. The server's own are left out; without an
    /// `Address` in the configuration, the first of the pool counts as the server's.
    pub pool: Cidr,
    /// A second address for each client, usually IPv6.
    #[serde(default)]
    pub pool6: Option<Cidr>,
    /// What clients send through the tunnel.
    #[serde(default = "everything")]
    pub allowed_ips: Vec<Cidr>,
    /// Seconds; 0 sends none.
    #[serde(default = "default_keepalive")]
    pub keepalive_secs: u16,
    #[serde(default)]
    pub live: Live,
}

/// Whether the running interface follows the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Live {
    /// Where the interface exists.
    #[default]
    Auto,
    /// Never: only the file is kept.
    Off,
}

/// `[A-Za-z0-9_=+.-]{1,15}`, as wg-quick takes them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl TryFrom<String> for InterfaceName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b))
            && !text.starts_with(['.', '-']);
        if good { Ok(Self(text)) } else { Err("an interface name is 1 to 15 of A-Z, a-z, 0-9, `_=+.-`") }
    }
}

/// A host name or an address, `[…]` around IPv6, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(String);

impl TryFrom<String> for Endpoint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = text.rsplit_once(':').is_some_and(|(host, port)| {
            let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
            (named || host.starts_with('[') && text.parse::<std::net::SocketAddrV6>().is_ok())
                && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if good { Ok(Self(text)) } else { Err("an endpoint is host:port, for example vpn.example.com:51820") }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key in base64: 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WireguardKey(String);

impl TryFrom<String> for WireguardKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if conf::key_bytes(&text).is_some() { Ok(Self(text)) } else { Err("a WireGuard key is 32 bytes in base64") }
    }
}

impl std::fmt::Display for WireguardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<WireguardKey> for String {
    fn from(key: WireguardKey) -> Self {
        key.0
    }
}

/// One server's peers. Edits run one after the other.
#[derive(Debug)]
pub(super) struct Wireguard {
    config: Arc<Config>,
    edits: tokio::sync::Mutex<()>,
}

const SYNC_DEADLINE: Duration = Duration::from_secs(10);

fn default_interface() -> InterfaceName {
    InterfaceName("wg0".into())
}

fn default_keepalive() -> u16 {
    25
}

fn everything() -> Vec<Cidr> {
    ["0.0.0.0/0", "::/0"].into_iter().filter_map(Cidr::parse).collect()
}

impl Wireguard {
    pub(super) fn new(config: &Config) -> Self {
        Self { config: Arc::new(config.clone()), edits: tokio::sync::Mutex::new(()) }
    }

    /// Where client addresses come from.
    pub(super) fn pools(&self) -> Vec<Cidr> {
        std::iter::once(self.config.pool).chain(self.config.pool6).collect()
    }

    /// Write the peer with the addresses that were foreseen, apply it live.
    pub(super) async fn add(&self, name: &PeerName, key: &WireguardKey, addresses: &[Cidr]) -> Result<Issued, Failure> {
        let (config, name, key, addresses) =
            (Arc::clone(&self.config), name.clone(), key.0.clone(), addresses.to_vec());
        self.edit(move |conf| {
            let (peer, server) = foresee::adding(&config, conf, name, key, &addresses)?;
            let preshared = Zeroizing::new(STANDARD.encode(*random::<32>()?));
            let created = peer.created_at.clone().unwrap_or_default();
            let block = conf::block(&peer.name, &created, &peer.identity, &preshared, &addresses);
            let template = client::template(&config, &addresses, &server, &preshared);
            Ok((conf.with(block.as_bytes()), Issued { peer, template }))
        })
        .await
    }

    /// Take the peer of that name and key away; it can be restored for a while.
    pub(super) async fn remove(&self, name: &PeerName, public_key: &str) -> Result<Peer, Failure> {
        let (config, name, public_key) = (Arc::clone(&self.config), name.clone(), public_key.to_owned());
        self.edit(move |conf| {
            let peer = conf.find(&name).filter(|p| p.public_key == public_key);
            let peer = peer.ok_or_else(|| Failure::NotFound(format!("no WireGuard peer {name} with that key")))?;
            let (without, block) = conf.without(peer);
            let block = String::from_utf8_lossy(&block).into_owned();
            let entry = removed::Removed { name: name.clone(), public_key, at: OffsetDateTime::now_utc(), block };
            removed::remember(&config.config_file, entry)?;
            Ok((without, Peer::from(peer)))
        })
        .await
    }

    /// Bring a removed peer back with its keys and its address.
    pub(super) async fn restore(&self, name: &PeerName, public_key: &str) -> Result<Peer, Failure> {
        let (config, name, public_key) = (Arc::clone(&self.config), name.clone(), public_key.to_owned());
        self.edit(move |conf| {
            let entry = removed::recall(&config.config_file, &name, &public_key)?;
            foresee::restoring(&config, conf, &name, &public_key, entry.block.as_bytes())
        })
        .await
    }

    /// Read, change, write, apply live; the file is put back where that fails.
    async fn edit<T, F>(&self, change: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Conf<'_>) -> Result<(Zeroizing<Vec<u8>>, T), Failure> + Send + 'static,
    {
        let _one_at_a_time = self.edits.lock().await;
        let config = Arc::clone(&self.config);
        let (before, after, value) = blocking(move || {
            let path = &config.config_file;
            let before = files::read_existing(path)?;
            let conf = parse(path, &before.bytes)?;
            if conf.save_config {
                return Err(Failure::Unavailable(format!(
                    "{} has SaveConfig = true, so wg-quick would forget who the peers are; set it to false",
                    path.display()
                )));
            }
            let (bytes, value) = change(&conf)?;
            parse(path, &bytes)?;
            let after = files::replace(path, &before, &bytes, 0o600)?;
            Ok((before, after, value))
        })
        .await?;
        let Err(failure) = self.sync(&after.bytes).await else { return Ok(value) };

        let (config, old) = (Arc::clone(&self.config), before.bytes.clone());
        let put_back = blocking(move || Ok(files::replace(&config.config_file, &after, &old, 0o600)?)).await;
        if let Err(second) = put_back {
            return Err(Failure::Failed(format!("{failure}; and the file could not be put back: {second}")));
        }
        // The interface may have taken half of it; a second failure adds nothing to the first.
        let _ = self.sync(&before.bytes).await;
        Err(failure)
    }

    async fn sync(&self, bytes: &[u8]) -> Result<(), Failure> {
        let interface = &self.config.interface.0;
        if self.config.live == Live::Off || !exists(interface).await {
            return Ok(());
        }
        let stripped = parse(&self.config.config_file, bytes)?.stripped();
        // Through stdin, a memory file: the server's key touches no second file.
        let wg = Program::new(first_existing(&["/usr/bin/wg", "/usr/local/bin/wg", "/bin/wg"]))
            .args(["syncconf", interface.as_str(), "/dev/stdin"])
            .input(stripped.to_vec())
            .deadline(SYNC_DEADLINE);
        match wg.run().await {
            Ok(output) if output.code() == 0 => Ok(()),
            Ok(output) => Err(Failure::Failed(format!("wg syncconf {interface}: {}", output.complaint()))),
            Err(error) => Err(Failure::Unavailable(chain(&error))),
        }
    }
}

impl From<&conf::Peer> for Peer {
    fn from(peer: &conf::Peer) -> Self {
        let address = (!peer.addresses.is_empty()).then(|| joined(&peer.addresses));
        Self {
            created_at: Some(peer.created.clone()),
            ..Self::new(peer.name.clone(), Kind::Wireguard, peer.public_key.clone(), address)
        }
    }
}

/// The kernel's interface, or a userspace one whose program answers: a dead one leaves its
/// socket behind.
async fn exists(interface: &str) -> bool {
    if Path::new("/sys/class/net").join(interface).exists() {
        return true;
    }
    let socket = Path::new("/var/run/wireguard").join(format!("{interface}.sock"));
    let connect = tokio::net::UnixStream::connect(socket);
    tokio::time::timeout(SYNC_DEADLINE, connect).await.is_ok_and(|connected| connected.is_ok())
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<Conf<'a>, Failure> {
    Conf::parse(bytes).map_err(|e: ConfError| Failure::Unavailable(format!("{} {e}", path.display())))
}

#[cfg(test)]
mod tests;
