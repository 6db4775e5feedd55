//! `repo init`: the first version of every role, from public keys. Refuses a folder that
//! has a repository.

use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;
use viworks_signing::keys::PublicKey;
use viworks_signing::tuf::repo::{Days, Keys as RoleKeys, REVOCATION, ROLES, Repository};

use super::super::{Error, Exit};
use super::dir::Dir;
use super::{Fault, Keys, finish, roles};

/// Make a repository: drafts version 1 of every role from public keys; who is there, signs.
#[derive(Debug, Args)]
#[command(after_help = "\
The people of the offline roles need not be in one room: give the public keys here, then each
runs 'repo sign' with the private one. The last one, or 'repo timestamp', publishes. The
released root is DIR/metadata/1.root.json: gateways get that file as trusted_root.

Examples:
  viworks-sign repo init releases \\
    --role root=root-1.pub.pem,root-2.pub.pem,root-3.pub.pem \\
    --role targets=targets-1.pub.pem,targets-2.pub.pem,targets-3.pub.pem \\
    --role releases=release.pub.pem,security.pub.pem --role revocation=revocation.pub.pem \\
    --role snapshot=snapshot.pub.pem --role timestamp=timestamp.pub.pem --key file:root-1.key.pem
  viworks-sign repo init lab … --threshold root=1 --threshold releases=1 --air-gap")]
pub(super) struct Init {
    /// The folder
    dir: PathBuf,
    /// Public keys of a role: ROLE=FILE or ROLE=FILE,FILE; needed for each role
    #[arg(long = "role", value_name = "ROLE=FILE")]
    roles: Vec<String>,
    /// How many of a role's keys sign, where it is not 2 for root, targets and releases, and 1 for the others
    #[arg(long, value_name = "ROLE=N")]
    threshold: Vec<String>,
    /// For how many days a role's file is valid, where it is not 365 for root, 180 targets, 90 releases, 30 revocation, 7 snapshot, 1 timestamp
    #[arg(long, value_name = "ROLE=N")]
    days: Vec<String>,
    /// Snapshot and timestamp are valid for 30 days: for gateways that get it on a medium
    #[arg(long)]
    air_gap: bool,
    #[command(flatten)]
    keys: Keys,
}

impl Init {
    pub fn run(&self) -> Result<Exit, Error> {
        let signers = self.keys.signers()?;
        let mut keys: BTreeMap<&str, Vec<PublicKey>> = BTreeMap::new();
        for text in &self.roles {
            let (role, given) = roles::keys(text)?;
            keys.entry(role).or_default().extend(given);
        }
        let mut thresholds: BTreeMap<&str, u32> = ROLES
            .iter()
            .map(|role| (*role, if [REVOCATION, "snapshot", "timestamp"].contains(role) { 1 } else { 2 }))
            .collect();
        for text in &self.threshold {
            let (role, number) = roles::number(text, 1)?;
            thresholds.insert(role, number);
        }
        let mut days = if self.air_gap { Days::air_gap() } else { Days::default() };
        for text in &self.days {
            let (role, number) = roles::number(text, 1)?;
            days.set(role, number);
        }
        let mut plan = BTreeMap::new();
        for role in ROLES {
            let keys = keys.remove(role).ok_or(Fault::NoKeys { role })?;
            plan.insert(role, RoleKeys { keys, threshold: thresholds[role] });
        }
        let dir = Dir::lock(&self.dir)?;
        if !dir.is_empty()? {
            return Err(Fault::Exists { path: self.dir.clone() }.into());
        }
        let mut repo = Repository::init(&plan, days.clone(), SystemTime::now()).map_err(Fault::from)?;
        dir.set_days(&days)?;
        finish(&dir, &mut repo, &signers, self.keys.output, "drafted version 1 of every role")
    }
}
