//! `repo revoke`, `repo rotate-root`, `repo refresh`: what changes a repository besides
//! releases. Refuses to take a revocation back.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use viworks_signing::names::is_plugin_id;
use viworks_signing::tuf::{self};

use super::super::{Error, Exit};
use super::{Fault, Keys, change, roles};

/// Revoke keys, digests or old releases. The list only grows.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign repo revoke releases --digest SHA256 --action stop --reason 'leaks tokens' --key …
  viworks-sign repo revoke releases --revoke-key stolen.pub.pem --key …
  viworks-sign repo revoke releases --floor accounts=0.41 --key …      # sequences up to 41 of epoch 0
Needs the keys of revocation, snapshot and timestamp.")]
pub(super) struct Revoke {
    /// The repository's folder
    dir: PathBuf,
    /// A key that signs no release any more: its id, or a file with the public key
    #[arg(long, value_name = "ID|PUB")]
    revoke_key: Vec<String>,
    /// SHA-256 of a component
    #[arg(long, value_name = "SHA256")]
    digest: Vec<String>,
    /// What gateways do that run it: stop at once, let it end (drain), or only tell (alert)
    #[arg(long, value_enum, default_value = "stop")]
    action: Action,
    /// Why, for those who read the gateways' logs
    #[arg(long, default_value = "")]
    reason: String,
    /// A plugin's releases up to and with a sequence: PLUGIN=EPOCH.SEQUENCE
    #[arg(long, value_name = "PLUGIN=E.S")]
    floor: Vec<String>,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    Stop,
    Drain,
    Alert,
}

impl Revoke {
    pub fn run(&self) -> Result<Exit, Error> {
        let action = match self.action {
            Action::Stop => tuf::Action::Stop,
            Action::Drain => tuf::Action::Drain,
            Action::Alert => tuf::Action::Alert,
        };
        let keys = self.revoke_key.iter().map(|text| roles::key_id(text)).collect::<Result<Vec<_>, _>>()?;
        if let Some(text) = self.digest.iter().find(|text| !roles::is_digest(text)) {
            return Err(Fault::Digest { text: text.clone() }.into());
        }
        let floors = self.floor.iter().map(|text| floor(text)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() && floors.is_empty() && self.digest.is_empty() {
            return Err(Fault::Nothing.into());
        }
        change(&self.dir, &self.keys, "revoked", |repo, now| {
            let revoked = repo.revoke(
                |list| {
                    keys.into_iter().for_each(|id| list.revoke_key(id));
                    self.digest.iter().for_each(|d| list.revoke_digest(d.clone(), action, self.reason.clone()));
                    floors.into_iter().for_each(|(plugin, epoch, sequence)| list.raise_floor(plugin, epoch, sequence));
                },
                now,
            );
            Ok(revoked.map_err(Fault::from)?)
        })
    }
}

fn floor(text: &str) -> Result<(String, u32, u32), Error> {
    let parts = || {
        let (plugin, floor) = text.split_once('=')?;
        let (epoch, sequence) = floor.split_once('.')?;
        is_plugin_id(plugin).then_some(())?;
        Some((plugin.to_owned(), epoch.parse().ok()?, sequence.parse().ok()?))
    };
    Ok(parts().ok_or_else(|| Fault::Floor { text: text.to_owned() })?)
}

/// Change the keys of any role: root's and its three by a new root, the others' by new targets.
#[derive(Debug, Args)]
#[command(after_help = "\
A new root needs the threshold of its old keys and of its new ones; 'repo sign' collects them.
Gateways follow the chain of roots by themselves, however long they were away.

Examples:
  viworks-sign repo rotate-root releases --add root=new.pub.pem --remove root=old.pub.pem --key …
  viworks-sign repo rotate-root releases --add timestamp=t2.pub.pem --remove timestamp=t1.pub.pem --key …
  viworks-sign repo rotate-root releases --add releases=r3.pub.pem --threshold releases=2 --key …")]
pub(super) struct RotateRoot {
    /// The repository's folder
    dir: PathBuf,
    /// Public keys to add: ROLE=FILE
    #[arg(long, value_name = "ROLE=FILE")]
    add: Vec<String>,
    /// A key to remove: ROLE=FILE or ROLE=KEYID
    #[arg(long, value_name = "ROLE=KEY")]
    remove: Vec<String>,
    /// How many of a role's keys sign
    #[arg(long, value_name = "ROLE=N")]
    threshold: Vec<String>,
    #[command(flatten)]
    keys: Keys,
}

impl RotateRoot {
    pub fn run(&self) -> Result<Exit, Error> {
        let add = self.add.iter().map(|text| roles::keys(text)).collect::<Result<Vec<_>, _>>()?;
        let mut remove = Vec::new();
        for text in &self.remove {
            let (role, key) = roles::split(text)?;
            remove.push((role, roles::key_id(key)?));
        }
        let thresholds = self.threshold.iter().map(|text| roles::number(text, 1)).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&str> = add.iter().map(|(role, _)| *role).collect();
        names.extend(remove.iter().map(|(role, _)| *role));
        names.extend(thresholds.iter().map(|(role, _)| *role));
        names.sort_unstable();
        names.dedup();
        change(&self.dir, &self.keys, "drafted other keys", |repo, now| {
            if names.is_empty() {
                repo.refresh("root", now).map_err(Fault::from)?;
            }
            for name in names {
                let added: Vec<_> =
                    add.iter().filter(|(role, _)| *role == name).flat_map(|(_, keys)| keys.iter().copied()).collect();
                let removed: Vec<_> =
                    remove.iter().filter(|(role, _)| *role == name).map(|(_, id)| id.clone()).collect();
                let threshold = thresholds.iter().rfind(|(role, _)| *role == name).map(|(_, number)| *number);
                repo.rotate(name, &added, &removed, threshold, now).map_err(Fault::from)?;
            }
            Ok(())
        })
    }
}

/// Renew a role's file before it expires: the same content, a new version and date.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign repo refresh releases --role revocation --key file:keys/revocation.key.pem \\
    --key env:SNAPSHOT_KEY --key env:TIMESTAMP_KEY
  viworks-sign repo refresh releases --role root --key file:keys/root-1.key.pem   # the others run 'repo sign'
Snapshot and timestamp renew themselves with 'repo timestamp'.")]
pub(super) struct Refresh {
    /// The repository's folder
    dir: PathBuf,
    /// root, targets, releases or revocation; may be given several times
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<String>,
    #[command(flatten)]
    keys: Keys,
}

impl Refresh {
    pub fn run(&self) -> Result<Exit, Error> {
        change(&self.dir, &self.keys, "drafted the next version", |repo, now| {
            for role in &self.roles {
                repo.refresh(role, now).map_err(Fault::from)?;
            }
            Ok(())
        })
    }
}
