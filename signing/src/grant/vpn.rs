//! The scope of `vpn`.

use super::Patterns;
use serde::{Deserialize, Serialize};

/// Which VPN users may be made and removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VpnScope {
    /// `wireguard`, `openvpn`.
    pub providers: Vec<String>,
    pub names: Patterns,
}

impl Default for VpnScope {
    fn default() -> Self {
        Self { providers: vec!["wireguard".into(), "openvpn".into()], names: Patterns::any() }
    }
}
