//! The verbs on VPN users. Keys, addresses and certificates are the gateway's; here is
//! only which provider is meant.

use exports::viworks::vpn::verbs::Guest;
use viworks_sdk::vpn::{self, Credentials, Peer, Provider};
use viworks_sdk::{Failure, Result, info};

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "viworks:vpn/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/log@1.0.0": viworks_sdk::log,
        "viworks:gateway/vpn@1.0.0": viworks_sdk::vpn,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn add_vpn_user(name: String, provider: Option<Provider>) -> Result<Credentials> {
        let provider = match provider {
            Some(provider) => provider,
            None => only_provider()?,
        };
        let taken = vpn::list_peers()?.into_iter().any(|p| p.name == name && p.provider == provider);
        if taken {
            return Err(Failure::conflict(format!("{} has a user {name} already", word(&provider))));
        }
        let credentials = vpn::add_peer(&name, Some(&provider))?;
        info!("added {} user {name}", word(&credentials.peer.provider));
        Ok(credentials)
    }

    fn delete_vpn_user(name: String, provider: Option<Provider>) -> Result<Peer> {
        let mut found: Vec<Peer> = vpn::list_peers()?.into_iter().filter(|p| p.name == name).collect();
        if let Some(provider) = &provider {
            found.retain(|p| p.provider == *provider);
        }
        let peer = match found.as_slice() {
            [] => return Err(Failure::not_found(format!("there is no VPN user {name} within the grant"))),
            [one] => one,
            several => {
                let words: Vec<&str> = several.iter().map(|p| word(&p.provider)).collect();
                let text = format!("provider: {name} is a user of {}; say which is meant", words.join(" and "));
                return Err(Failure::invalid(text));
            }
        };
        let removed = vpn::remove_peer(&name, Some(&peer.provider))?;
        info!("deleted {} user {name}", word(&removed.provider));
        Ok(removed)
    }

    fn list_vpn_users(provider: Option<Provider>) -> Result<Vec<Peer>> {
        let mut all = vpn::list_peers()?;
        if let Some(provider) = provider {
            all.retain(|p| p.provider == provider);
        }
        Ok(all)
    }
}

/// The one provider that this host offers.
fn only_provider() -> Result<Provider> {
    let mut offered = vpn::providers()?;
    match offered.len() {
        0 => Err(Failure::unavailable("no VPN provider is configured and granted on this host")),
        1 => Ok(offered.remove(0)),
        _ => {
            let words: Vec<&str> = offered.iter().map(word).collect();
            Err(Failure::invalid(format!("provider: this host offers {}; say which is meant", words.join(" and "))))
        }
    }
}

fn word(provider: &Provider) -> &str {
    match provider {
        Provider::Wireguard => "wireguard",
        Provider::Openvpn => "openvpn",
        Provider::Other(name) => name,
    }
}

export!(Plugin);
