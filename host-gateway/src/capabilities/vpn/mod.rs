//! The `vpn` capability: users of the VPN servers on this host, WireGuard and OpenVPN
//! behind one interface. Refuses names that a file or a socket could read as more, and
//! peers that the gateway didn't make.
//!
//! - [`name`], [`pool`]: what a user is called, which address is free
//! - `host`: the functions that plugins call, and their gate
//! - `foresee`: what a change would be, over what a plan so far has changed
//! - `judge`: asks a grant of a whole change, where nobody else did
//! - `wireguard`: peers in the server's configuration, `wg syncconf`
//! - `openvpn`: certificates of the site's own CA, CRL, management socket
//! - `files`: reading and replacing files that others own too
//!
//! Private keys are made in `host`, before the effect: the effect carries the public key,
//! and the private one goes into the plugin's answer and nowhere else.

mod files;
mod foresee;
mod host;
mod judge;
pub mod name;
pub mod openvpn;
pub mod pool;
pub mod wireguard;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use self::name::PeerName;
use self::openvpn::{Openvpn, Serial};
use self::pool::Cidr;
use self::wireguard::{Wireguard, WireguardKey};
use crate::broker::client::of_the_host;
use crate::broker::wire::Request;
use crate::effects::Effect;
use crate::failure::Failure;
use crate::host::Reach;

/// `[providers.vpn]`: what is absent is not served.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub wireguard: Option<wireguard::Config>,
    pub openvpn: Option<openvpn::Config>,
}

/// Which server a peer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Wireguard,
    Openvpn,
}

/// A user of a server, as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub name: PeerName,
    pub provider: Kind,
    pub address: Option<String>,
    /// WireGuard: the public key. OpenVPN: the certificate's serial, in hex.
    pub identity: String,
    pub created_at: Option<String>,
    pub expires_at: Option<String>,
}

/// What adding a peer answers: everything but the private key, which `template` has a
/// place for ([`PRIVATE_KEY`]). Never journaled.
#[derive(Clone, Serialize, Deserialize)]
struct Issued {
    peer: Peer,
    template: String,
}

/// Where the private key belongs in a template. No configuration can hold it by itself.
const PRIVATE_KEY: &str = "\u{0}private key\u{0}";

/// What can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `addresses` are the ones that it gets, once that is foreseen.
    AddWireguard {
        name: PeerName,
        public_key: WireguardKey,
        #[serde(default)]
        addresses: Vec<Cidr>,
    },
    /// `public_key` is a SubjectPublicKeyInfo in PEM. `days` are those of its certificate,
    /// once that is foreseen.
    AddOpenvpn {
        name: PeerName,
        serial: Serial,
        public_key: String,
        #[serde(default)]
        days: u16,
    },
    /// Only the peer of exactly this identity.
    Remove {
        provider: Kind,
        name: PeerName,
        identity: String,
        #[serde(default)]
        address: Option<String>,
    },
    /// A WireGuard peer comes back with its keys and address, an OpenVPN certificate is
    /// valid again.
    Restore {
        provider: Kind,
        name: PeerName,
        identity: String,
        #[serde(default)]
        address: Option<String>,
    },
}

/// The servers that are configured.
#[derive(Debug)]
pub struct Provider {
    wireguard: Option<Wireguard>,
    openvpn: Option<Openvpn>,
    reach: Reach,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wireguard => "wireguard",
            Self::Openvpn => "openvpn",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wireguard => "WireGuard",
            Self::Openvpn => "OpenVPN",
        })
    }
}

impl Peer {
    fn new(name: PeerName, provider: Kind, identity: String, address: Option<String>) -> Self {
        Self { name, provider, address, identity, created_at: None, expires_at: None }
    }
}

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddWireguard { .. } | Self::AddOpenvpn { .. } => "vpn.add-peer",
            Self::Remove { .. } => "vpn.remove-peer",
            Self::Restore { .. } => "vpn.restore-peer",
        }
    }

    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::AddWireguard { name, .. } => format!("add {} peer {name}", Kind::Wireguard),
            Self::AddOpenvpn { name, .. } => format!("add {} peer {name}", Kind::Openvpn),
            Self::Remove { provider, name, .. } => format!("remove {provider} peer {name}"),
            Self::Restore { provider, name, .. } => format!("bring back {provider} peer {name}"),
        }
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &Config, reach: Reach) -> Self {
        Self {
            wireguard: config.wireguard.as_ref().map(Wireguard::new),
            openvpn: config.openvpn.as_ref().map(Openvpn::new),
            reach,
        }
    }

    /// The servers that are configured here.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let wireguard = self.wireguard.is_some().then_some(Kind::Wireguard);
        wireguard.into_iter().chain(self.openvpn.is_some().then_some(Kind::Openvpn)).collect()
    }

    /// The peers that the gateway made, in no order, as a plan so far leaves them.
    ///
    /// # Errors
    /// `unavailable` when the server's files can't be read or trusted.
    pub(crate) async fn list(&self, kind: Kind, planned: &[Effect]) -> Result<Vec<Peer>, Failure> {
        if let Some(broker) = self.reach.broker() {
            return broker.ask(Request::Peers { kind, planned: of_the_host(planned) }).await;
        }
        let planned = foresee::changes(planned);
        match kind {
            Kind::Wireguard => self.wireguard()?.list(&planned).await,
            Kind::Openvpn => self.openvpn()?.list(&planned).await,
        }
    }

    /// The peer that removing `name` would remove.
    pub(crate) async fn find(&self, kind: Kind, name: &PeerName, planned: &[Effect]) -> Result<Peer, Failure> {
        if let Some(broker) = self.reach.broker() {
            return broker.ask(Request::Peer { kind, name: name.clone(), planned: of_the_host(planned) }).await;
        }
        let changes = foresee::changes(planned);
        let found = match kind {
            Kind::Wireguard => self.wireguard()?.list(&changes).await?.into_iter().find(|p| p.name == *name),
            Kind::Openvpn => self.openvpn()?.find(name, &changes).await?,
        };
        found.ok_or_else(|| Failure::NotFound(format!("no {kind} peer {name}")))
    }

    pub(crate) async fn apply(&self, change: &Change) -> Result<Value, Failure> {
        match change {
            Change::AddWireguard { name, public_key, addresses } => {
                to_json(&self.wireguard()?.add(name, public_key, addresses).await?)
            }
            Change::AddOpenvpn { name, serial, public_key, .. } => {
                to_json(&self.openvpn()?.add(name, serial, public_key).await?)
            }
            Change::Remove { provider, name, identity, .. } => match provider {
                Kind::Wireguard => to_json(&self.wireguard()?.remove(name, identity).await?),
                Kind::Openvpn => to_json(&self.openvpn()?.remove(name, identity).await?),
            },
            Change::Restore { provider, name, identity, .. } => match provider {
                Kind::Wireguard => to_json(&self.wireguard()?.restore(name, identity).await?),
                Kind::Openvpn => to_json(&self.openvpn()?.restore(name, identity).await?),
            },
        }
    }

    /// Where addresses of WireGuard peers come from; `None` where no server is configured.
    fn pools(&self) -> Option<Vec<Cidr>> {
        self.wireguard.as_ref().map(Wireguard::pools)
    }

    fn wireguard(&self) -> Result<&Wireguard, Failure> {
        self.wireguard.as_ref().ok_or_else(|| not_configured(Kind::Wireguard))
    }

    fn openvpn(&self) -> Result<&Openvpn, Failure> {
        self.openvpn.as_ref().ok_or_else(|| not_configured(Kind::Openvpn))
    }
}

impl Peer {
    fn removal(&self) -> Change {
        Change::Remove {
            provider: self.provider,
            name: self.name.clone(),
            identity: self.identity.clone(),
            address: self.address.clone(),
        }
    }
}

fn not_configured(kind: Kind) -> Failure {
    let table = kind.as_str();
    Failure::Unavailable(format!("no {kind} server is configured here: it needs [providers.vpn.{table}]"))
}

fn to_json(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|e| Failure::Failed(e.to_string()))
}

fn joined(addresses: &[Cidr]) -> String {
    addresses.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ")
}

/// File work, off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failure::Failed(e.to_string()))?
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    getrandom::fill(bytes.as_mut()).map_err(|e| Failure::Unavailable(format!("no random bytes: {e}")))?;
    Ok(bytes)
}

/// A time as the interface gives it: RFC 3339, UTC, whole seconds.
fn rfc3339(at: time::OffsetDateTime) -> Result<String, Failure> {
    let format = time::format_description::well_known::Rfc3339;
    at.replace_nanosecond(0)
        .map_err(|e| e.to_string())
        .and_then(|at| at.format(&format).map_err(|e| e.to_string()))
        .map_err(Failure::Failed)
}

fn now() -> Result<String, Failure> {
    rfc3339(time::OffsetDateTime::now_utc())
}

#[cfg(test)]
mod gate;
#[cfg(test)]
mod live;
