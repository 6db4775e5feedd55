//! A whole change, asked of a grant by who did not make it. Refuses servers and names that
//! are not granted, and addresses that no peer would be given: one of somebody else's would
//! draw his traffic.

use viworks_signing::grant::{Grant, Granted, VpnScope};

use super::host::has;
use super::name::PeerName;
use super::{Change, Kind, Provider, pool};
use crate::failure::Failure;

/// A WireGuard key or a serial.
const MAX_IDENTITY: usize = 64;
/// A SubjectPublicKeyInfo in PEM of any kind that is issued for.
const MAX_KEY: usize = 4_096;
const MAX_ADDRESS: usize = 128;

impl Provider {
    /// # Errors
    /// `denied` with the rule, or `invalid-argument`.
    pub(crate) fn judge(&self, change: &Change, grant: &Grant) -> Result<(), Failure> {
        let (kind, name) = match change {
            Change::AddWireguard { name, .. } => (Kind::Wireguard, name),
            Change::AddOpenvpn { name, .. } => (Kind::Openvpn, name),
            Change::Remove { provider, name, .. } | Change::Restore { provider, name, .. } => (*provider, name),
        };
        let scope = Self::granted(kind, grant)?;
        require(scope, "vpn.names", || format!("peer {name}"), |s| s.names.match_any(name.as_str()))?;
        match change {
            Change::AddWireguard { addresses, .. } => {
                let Some(pools) = self.pools() else { return Ok(()) };
                let given = |a: &pool::Cidr| *a == a.address() && pools.iter().any(|p| pool::contains(p, a));
                if addresses.len() <= pools.len() && addresses.iter().all(given) {
                    return Ok(());
                }
                Err(Failure::InvalidArgument("an address that is not one of the pool's".into()))
            }
            Change::AddOpenvpn { public_key, .. } if public_key.len() > MAX_KEY => {
                Err(Failure::InvalidArgument("a public key that is too long".into()))
            }
            Change::AddOpenvpn { .. } => Ok(()),
            Change::Remove { identity, address, .. } | Change::Restore { identity, address, .. } => {
                let plain = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
                let good = plain(identity, MAX_IDENTITY) && address.as_deref().is_none_or(|a| plain(a, MAX_ADDRESS));
                if good { Ok(()) } else { Err(Failure::InvalidArgument("no identity of a peer".into())) }
            }
        }
    }

    /// Whether a grant reaches these servers at all.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn granted(kind: Kind, grant: &Grant) -> Result<&Granted<VpnScope>, Failure> {
        let scope = grant.vpn.as_ref().ok_or_else(|| Failure::Denied {
            capability: "vpn".into(),
            rule: "grant: vpn".into(),
            message: "vpn is not granted".into(),
        })?;
        require(scope, "vpn.providers", || format!("provider {}", kind.as_str()), |s| has(s, kind))?;
        Ok(scope)
    }

    /// Whether a grant covers a peer of that name.
    #[must_use]
    pub(crate) fn covers(scope: &Granted<VpnScope>, name: &PeerName) -> bool {
        scope.scopes().all(|s| s.names.match_any(name.as_str()))
    }
}

fn require(
    scope: &Granted<VpnScope>,
    rule: &str,
    what: impl FnOnce() -> String,
    allows: impl Fn(&VpnScope) -> bool,
) -> Result<(), Failure> {
    scope.require(rule, allows).map_err(|refused| Failure::Denied {
        capability: "vpn".into(),
        rule: refused.rule,
        message: what(),
    })
}
