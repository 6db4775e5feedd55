//! What a change of VPN users would be: refuses what applying would refuse, chooses the
//! address, says what it takes the place of. A plan makes no key: where one would be, it
//! says so.

use viworks_protocol::outcome::DiffLine;

use super::name::PeerName;
use super::openvpn::Serial;
use super::wireguard::WireguardKey;
use super::{Change, Kind, Provider, joined, to_json};
use crate::effects::diff::{appears, goes, reversed};
use crate::effects::{Effect, Foreseen, Trace};
use crate::failure::Failure;

/// What a plan shows where applying makes a key.
pub(super) const NO_KEY: &str = "(made when this is applied)";

/// The planned changes of VPN users, in order.
pub(super) fn changes(planned: &[Effect]) -> Vec<Change> {
    let changes = planned.iter().filter_map(|effect| match effect {
        Effect::Vpn(change) => Some(change.clone()),
        _ => None,
    });
    changes.collect()
}

impl Provider {
    pub(crate) async fn foresee(&self, change: Change, planned: &[Effect]) -> Result<Foreseen, Failure> {
        let before = changes(planned);
        let (change, answer) = match change {
            Change::AddWireguard { name, public_key, addresses } => {
                let (addresses, issued) = self.wireguard()?.foresee_add(&name, &public_key, addresses, &before).await?;
                (Change::AddWireguard { name, public_key, addresses }, to_json(&issued))
            }
            Change::AddOpenvpn { name, serial, public_key, .. } => {
                let (days, issued) = self.openvpn()?.foresee_add(&name, &serial, &before).await?;
                (Change::AddOpenvpn { name, serial, public_key, days }, to_json(&issued))
            }
            Change::Remove { provider, name, identity, .. } => {
                let peer = self.find(provider, &name, planned).await?;
                if peer.identity != identity {
                    return Err(Failure::Conflict(format!("the {provider} peer {name} is another one by now")));
                }
                let answer = to_json(&peer);
                (Change::Remove { provider, name, identity, address: peer.address }, answer)
            }
            Change::Restore { provider, name, identity, .. } => {
                let peer = match provider {
                    Kind::Wireguard => self.wireguard()?.foresee_restore(&name, &identity, &before).await?,
                    Kind::Openvpn => self.openvpn()?.foresee_restore(&name, &identity, &before).await?,
                };
                let answer = to_json(&peer);
                (Change::Restore { provider, name, identity, address: peer.address }, answer)
            }
        };
        Ok(Foreseen { effect: Effect::Vpn(change), answer })
    }

    /// Whether a foreseen change happened, by what the servers' files show.
    pub(crate) async fn trace(&self, change: &Change) -> Result<Trace, Failure> {
        let (kind, name, identity) = match change {
            Change::AddWireguard { name, public_key, .. } => (Kind::Wireguard, name, public_key.to_string()),
            Change::AddOpenvpn { name, serial, .. } => (Kind::Openvpn, name, serial.to_string()),
            Change::Remove { provider, name, identity, .. } | Change::Restore { provider, name, identity, .. } => {
                (*provider, name, identity.clone())
            }
        };
        let there = self.list(kind, &[]).await?.into_iter().find(|peer| peer.name == *name);
        let is_there = there.as_ref().is_some_and(|peer| peer.identity == identity);
        let adds = !matches!(change, Change::Remove { .. });
        Ok(match (adds, is_there, there) {
            (true, false, None) => Trace::Absent,
            // Revoking may have begun: bringing it back does no harm to one that is there.
            (false, true, _) if kind == Kind::Openvpn && self.openvpn()?.is_half_revoked(name, &identity).await? => {
                Trace::Present(Effect::Vpn(change.clone()).inverse())
            }
            (false, true, _) => Trace::Absent,
            (true, true, _) | (false, false, None) => Trace::Present(Effect::Vpn(change.clone()).inverse()),
            (_, false, Some(_)) => Trace::Unclear,
        })
    }
}

impl Change {
    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        let added = |kind: Kind, name: &PeerName| appears("peer", format!("{name} ({kind})"));
        match self {
            Self::AddWireguard { name, addresses, .. } => {
                let address = (!addresses.is_empty()).then(|| appears("address", joined(addresses)));
                let lines = [Some(added(Kind::Wireguard, name)), address, Some(appears("key", "a new one"))];
                lines.into_iter().flatten().collect()
            }
            Self::AddOpenvpn { name, days, .. } => {
                vec![added(Kind::Openvpn, name), appears("certificate", format!("a new one for {days} days"))]
            }
            Self::Remove { provider, name, identity, address } => {
                removed(*provider, name, identity, address.as_deref())
            }
            Self::Restore { provider, name, identity, address } => {
                reversed(removed(*provider, name, identity, address.as_deref()))
            }
        }
    }

    /// What takes a foreseen change back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::AddWireguard { name, public_key, addresses } => Self::Remove {
                provider: Kind::Wireguard,
                name,
                identity: public_key.to_string(),
                address: (!addresses.is_empty()).then(|| joined(&addresses)),
            },
            Self::AddOpenvpn { name, serial, .. } => {
                Self::Remove { provider: Kind::Openvpn, name, identity: serial.to_string(), address: None }
            }
            Self::Remove { provider, name, identity, address } => Self::Restore { provider, name, identity, address },
            Self::Restore { provider, name, identity, address } => Self::Remove { provider, name, identity, address },
        }
    }
}

fn removed(kind: Kind, name: &PeerName, identity: &str, address: Option<&str>) -> Vec<DiffLine> {
    let field = match kind {
        Kind::Wireguard => "key",
        Kind::Openvpn => "certificate",
    };
    let mut lines = vec![goes("peer", format!("{name} ({kind})"))];
    lines.extend(address.map(|address| goes("address", address)));
    lines.push(goes(field, identity));
    lines
}

/// The identities of peers that are planned, and never real.
pub(super) fn placeholder(kind: Kind) -> Result<Identity, Failure> {
    let bad = |e: &'static str| Failure::Failed(e.to_owned());
    Ok(match kind {
        Kind::Wireguard => Identity::Wireguard(WireguardKey::try_from(format!("{}=", "A".repeat(43))).map_err(bad)?),
        Kind::Openvpn => Identity::Openvpn(Serial::try_from(format!("4{}", "0".repeat(31))).map_err(bad)?),
    })
}

pub(super) enum Identity {
    Wireguard(WireguardKey),
    Openvpn(Serial),
}
