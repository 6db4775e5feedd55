//! What a change of peers would be, on the configuration as a plan so far would leave it.
//! Changes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::conf::{self, Conf};
use super::{Config, Wireguard, WireguardKey, client, files, joined, parse, removed};
use crate::capabilities::vpn::foresee::NO_KEY;
use crate::capabilities::vpn::name::PeerName;
use crate::capabilities::vpn::pool::{self, Cidr};
use crate::capabilities::vpn::{Change, Issued, Kind, Peer, blocking, now};
use crate::failure::Failure;

type Bytes = Zeroizing<Vec<u8>>;

impl Wireguard {
    pub(in super::super) async fn list(&self, planned: &[Change]) -> Result<Vec<Peer>, Failure> {
        self.look(planned, |_, conf, _| Ok(conf.peers.iter().map(Peer::from).collect())).await
    }

    /// The addresses of a new peer, and what adding it would answer.
    pub(in super::super) async fn foresee_add(
        &self,
        name: &PeerName,
        key: &WireguardKey,
        asked: Vec<Cidr>,
        planned: &[Change],
    ) -> Result<(Vec<Cidr>, Issued), Failure> {
        let (name, key) = (name.clone(), key.to_string());
        self.look(planned, move |config, conf, _| {
            let addresses = if asked.is_empty() { addresses(config, conf)? } else { asked };
            let (peer, server) = adding(config, conf, name, key, &addresses)?;
            let template = client::template(config, &addresses, &server, NO_KEY);
            Ok((addresses, Issued { peer, template }))
        })
        .await
    }

    pub(in super::super) async fn foresee_restore(
        &self,
        name: &PeerName,
        public_key: &str,
        planned: &[Change],
    ) -> Result<Peer, Failure> {
        let (name, public_key) = (name.clone(), public_key.to_owned());
        self.look(planned, move |config, conf, gone| {
            let block = recall(&config.config_file, gone, &name, &public_key)?;
            restoring(config, conf, &name, &public_key, &block).map(|(_, peer)| peer)
        })
        .await
    }

    /// Read the configuration as `planned` would leave it, and the blocks that it took away.
    async fn look<T: Send + 'static>(
        &self,
        planned: &[Change],
        see: impl FnOnce(&Config, &Conf<'_>, &Gone) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (config, planned) = (Arc::clone(&self.config), planned.to_vec());
        blocking(move || {
            let path = &config.config_file;
            let mut bytes = files::read_existing(path)?.bytes;
            let mut gone = Gone::default();
            for change in &planned {
                if let Some(next) = replay(path, &parse(path, &bytes)?, change, &mut gone)? {
                    bytes = next;
                }
            }
            see(&config, &parse(path, &bytes)?, &gone)
        })
        .await
    }
}

/// Peers that a plan took away, by name and key.
type Gone = HashMap<(PeerName, String), Bytes>;

fn replay(path: &Path, conf: &Conf<'_>, change: &Change, gone: &mut Gone) -> Result<Option<Bytes>, Failure> {
    Ok(match change {
        Change::AddWireguard { name, public_key, addresses } => {
            let block = conf::block(name, &now()?, &public_key.to_string(), NO_KEY, addresses);
            Some(conf.with(block.as_bytes()))
        }
        Change::Remove { provider: Kind::Wireguard, name, identity, .. } => conf.find(name).map(|peer| {
            let (without, block) = conf.without(peer);
            gone.insert((name.clone(), identity.clone()), block);
            without
        }),
        Change::Restore { provider: Kind::Wireguard, name, identity, .. } => {
            Some(conf.with(&recall(path, gone, name, identity)?))
        }
        _ => None,
    })
}

fn recall(path: &Path, gone: &Gone, name: &PeerName, public_key: &str) -> Result<Bytes, Failure> {
    match gone.get(&(name.clone(), public_key.to_owned())) {
        Some(block) => Ok(block.clone()),
        None => removed::recall(path, name, public_key).map(|entry| Zeroizing::new(entry.block.into_bytes())),
    }
}

/// The peer as it would be with these addresses, and the server's public key.
pub(super) fn adding(
    config: &Config,
    conf: &Conf<'_>,
    name: PeerName,
    key: String,
    addresses: &[Cidr],
) -> Result<(Peer, String), Failure> {
    let path = &config.config_file;
    if conf.find(&name).is_some() {
        return Err(Failure::Conflict(format!("the WireGuard peer {name} exists already")));
    }
    let private = conf.private_key.as_ref().ok_or_else(|| {
        Failure::Unavailable(format!("{} has no PrivateKey: clients would not find it", path.display()))
    })?;
    if conf.save_config {
        return Err(Failure::Unavailable(format!(
            "{} has SaveConfig = true, so wg-quick would forget who the peers are; set it to false",
            path.display()
        )));
    }
    let taken = |a: &&Cidr| conf.allowed.contains(a) || conf.addresses.iter().any(|own| own.address() == a.address());
    if let Some(address) = addresses.iter().find(taken) {
        return Err(Failure::Conflict(format!("the address {address} was given to another peer meanwhile")));
    }
    let peer = Peer { created_at: Some(now()?), ..Peer::new(name, Kind::Wireguard, key, Some(joined(addresses))) };
    Ok((peer, client::public_of(private)))
}

/// The file with a removed peer in it again, and that peer.
pub(super) fn restoring(
    config: &Config,
    conf: &Conf<'_>,
    name: &PeerName,
    public_key: &str,
    block: &[u8],
) -> Result<(Bytes, Peer), Failure> {
    if conf.find(name).is_some() || conf.keys.iter().any(|key| key == public_key) {
        return Err(Failure::Conflict(format!("the WireGuard peer {name} exists already")));
    }
    let with = conf.with(block);
    let after = parse(&config.config_file, &with)?;
    let peer = after.find(name).ok_or_else(|| Failure::Failed(format!("what is kept of {name} is damaged")))?;
    if peer.addresses.iter().any(|a| conf.allowed.contains(a)) {
        return Err(Failure::Conflict(format!("the address of {name} was given to another peer meanwhile")));
    }
    let peer = Peer::from(peer);
    Ok((with.clone(), peer))
}

fn addresses(config: &Config, conf: &Conf<'_>) -> Result<Vec<Cidr>, Failure> {
    let pools = std::iter::once(&config.pool).chain(&config.pool6);
    pools
        .map(|pool| {
            let mut taken = conf.allowed.clone();
            taken.extend(conf.addresses.iter().map(Cidr::address));
            if !conf.addresses.iter().any(|a| pool::contains(pool, a)) {
                taken.extend(pool::first_host(pool).map(Cidr::host));
            }
            pool::lowest_free(pool, &taken)
                .map(Cidr::host)
                .ok_or_else(|| Failure::Unavailable(format!("no address is left in the pool {pool}")))
        })
        .collect()
}
