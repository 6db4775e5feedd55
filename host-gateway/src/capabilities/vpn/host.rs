//! What plugins can ask of `vpn`: the gate, the making of keys, the answer. Private keys
//! exist here and in the answer only.

use std::sync::Arc;

use viworks_signing::grant::{Granted, VpnScope};
use zeroize::Zeroizing;

use super::super::Call;
use super::super::wit::viworks::gateway::types;
use super::super::wit::viworks::gateway::vpn as wit;
use super::foresee::{Identity, NO_KEY, placeholder};
use super::name::PeerName;
use super::openvpn::{self, Serial};
use super::wireguard::{self, WireguardKey};
use super::{Change, Issued, Kind, PRIVATE_KEY, Peer};
use crate::effects::Effect;
use crate::failure::Failure;

impl wit::Host for Call {
    async fn providers(&mut self) -> wasmtime::Result<Result<Vec<wit::Provider>, types::Failure>> {
        self.enter()?;
        let kinds = granted(self).map(|granted| usable(self, &granted).into_iter().map(Into::into).collect());
        Ok(kinds.map_err(Into::into))
    }

    async fn add_peer(
        &mut self,
        name: String,
        provider: Option<wit::Provider>,
    ) -> wasmtime::Result<Result<wit::Credentials, types::Failure>> {
        self.enter()?;
        Ok(add(self, name, provider).await.map_err(Into::into))
    }

    async fn remove_peer(
        &mut self,
        name: String,
        provider: Option<wit::Provider>,
    ) -> wasmtime::Result<Result<wit::Peer, types::Failure>> {
        self.enter()?;
        Ok(remove(self, name, provider).await.map_err(Into::into))
    }

    async fn list_peers(&mut self) -> wasmtime::Result<Result<Vec<wit::Peer>, types::Failure>> {
        self.enter()?;
        Ok(list(self).await.map_err(Into::into))
    }
}

async fn add(call: &mut Call, name: String, provider: Option<wit::Provider>) -> Result<wit::Credentials, Failure> {
    let (name, kind) = allow(call, name, provider)?;
    let (private_key, change) = if call.recorder.is_plan() {
        (Zeroizing::new(NO_KEY.to_owned()), without_key(kind, name)?)
    } else {
        with_key(kind, name)?
    };
    let issued: Issued = call.perform(Effect::Vpn(change)).await?;
    Ok(credentials(issued, &private_key))
}

fn with_key(kind: Kind, name: PeerName) -> Result<(Zeroizing<String>, Change), Failure> {
    Ok(match kind {
        Kind::Wireguard => {
            let (private, public) = wireguard::key_pair()?;
            let public_key = WireguardKey::try_from(public).map_err(|e| Failure::Failed(e.to_owned()))?;
            (private, Change::AddWireguard { name, public_key, addresses: Vec::new() })
        }
        Kind::Openvpn => {
            let (private, public_key) = openvpn::key_pair()?;
            (private, Change::AddOpenvpn { name, serial: Serial::random()?, public_key, days: 0 })
        }
    })
}

/// For a plan: nobody can connect with what it answers.
fn without_key(kind: Kind, name: PeerName) -> Result<Change, Failure> {
    Ok(match placeholder(kind)? {
        Identity::Wireguard(public_key) => Change::AddWireguard { name, public_key, addresses: Vec::new() },
        Identity::Openvpn(serial) => Change::AddOpenvpn { name, serial, public_key: String::new(), days: 0 },
    })
}

pub(super) fn credentials(issued: Issued, private_key: &str) -> wit::Credentials {
    let configuration = Zeroizing::new(issued.template.replace(PRIVATE_KEY, private_key.trim_end()));
    let qr_svg = match issued.peer.provider {
        Kind::Wireguard => wireguard::qr_svg(&configuration),
        // No OpenVPN program reads one, and a profile is too long for it.
        Kind::Openvpn => None,
    };
    wit::Credentials { peer: issued.peer.into(), configuration: configuration.to_string(), qr_svg }
}

async fn remove(call: &mut Call, name: String, provider: Option<wit::Provider>) -> Result<wit::Peer, Failure> {
    let (name, kind) = allow(call, name, provider)?;
    let peer = call.host.vpn.find(kind, &name, call.recorder.planned()).await?;
    call.perform::<Peer>(Effect::Vpn(peer.removal())).await.map(Into::into)
}

async fn list(call: &mut Call) -> Result<Vec<wit::Peer>, Failure> {
    let granted = granted(call)?;
    let mut peers = Vec::new();
    for kind in usable(call, &granted) {
        let found = call.host.vpn.list(kind, call.recorder.planned()).await?;
        peers.extend(found.into_iter().filter(|p| granted.scopes().all(|s| s.names.match_any(p.name.as_str()))));
    }
    peers.sort_by(|a, b| (&a.name, a.provider).cmp(&(&b.name, b.provider)));
    Ok(peers.into_iter().map(Into::into).collect())
}

/// The gate of both changes: a good name, a server that is there, both granted.
fn allow(call: &mut Call, name: String, provider: Option<wit::Provider>) -> Result<(PeerName, Kind), Failure> {
    let granted = granted(call)?;
    let name = PeerName::try_from(name).map_err(|e| Failure::InvalidArgument(e.to_string()))?;
    let kind = match provider {
        Some(wit::Provider::Wireguard) => Kind::Wireguard,
        Some(wit::Provider::Openvpn) => Kind::Openvpn,
        Some(wit::Provider::Other(other)) => {
            let other: String = other.chars().take(32).collect();
            return Err(Failure::InvalidArgument(format!("no VPN provider {other:?}: wireguard or openvpn")));
        }
        None => match usable(call, &granted)[..] {
            [only] => only,
            [] => return Err(Failure::Unavailable("no VPN server is configured here and granted".into())),
            _ => return Err(Failure::InvalidArgument("several VPN providers are granted here: name one".into())),
        },
    };
    call.require(&granted, "vpn.providers", || format!("provider {}", kind.as_str()), |s| has(s, kind))?;
    call.require(&granted, "vpn.names", || format!("peer {name}"), |s| s.names.match_any(name.as_str()))?;
    Ok((name, kind))
}

fn granted(call: &Call) -> Result<Granted<VpnScope>, Failure> {
    let grant = Arc::clone(&call.grant);
    grant.vpn.clone().ok_or_else(|| Failure::Denied {
        capability: "vpn".into(),
        rule: "grant: vpn".into(),
        message: "vpn is not granted".into(),
    })
}

fn usable(call: &Call, granted: &Granted<VpnScope>) -> Vec<Kind> {
    call.host.vpn.kinds().into_iter().filter(|kind| granted.scopes().all(|s| has(s, *kind))).collect()
}

pub(super) fn has(scope: &VpnScope, kind: Kind) -> bool {
    scope.providers.iter().any(|p| p == kind.as_str())
}

impl From<Kind> for wit::Provider {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Wireguard => Self::Wireguard,
            Kind::Openvpn => Self::Openvpn,
        }
    }
}

impl From<Peer> for wit::Peer {
    fn from(peer: Peer) -> Self {
        Self {
            name: peer.name.into(),
            provider: peer.provider.into(),
            address: peer.address,
            identity: peer.identity,
            created_at: peer.created_at,
            expires_at: peer.expires_at,
        }
    }
}
