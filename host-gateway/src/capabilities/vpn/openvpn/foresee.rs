//! What a change of certificates would be, on the index as a plan so far would leave it.
//! Issues and revokes nothing.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::database::{Database, Entry};
use super::pki::Authority;
use super::{Openvpn, Serial, profile};
use crate::capabilities::vpn::foresee::NO_KEY;
use crate::capabilities::vpn::name::PeerName;
use crate::capabilities::vpn::{Change, Issued, Kind, Peer, blocking};
use crate::failure::Failure;

impl Openvpn {
    /// The newest valid certificate of each name.
    pub(in super::super) async fn list(&self, planned: &[Change]) -> Result<Vec<Peer>, Failure> {
        self.look(planned, |db| {
            let newest = db.entries.iter().filter(|e| db.active(&e.name) == Some(e));
            newest.map(Peer::try_from).collect()
        })
        .await
    }

    /// The valid certificate of that name, else a revoked one whose session may stand.
    pub(in super::super) async fn find(&self, name: &PeerName, planned: &[Change]) -> Result<Option<Peer>, Failure> {
        let name = name.clone();
        self.look(planned, move |db| {
            let pending = || db.entries.iter().rev().find(|e| e.session_may_stand && e.name == name);
            db.active(&name).or_else(pending).map(Peer::try_from).transpose()
        })
        .await
    }

    /// Whether revoking a certificate that counts as valid has begun.
    pub(in super::super) async fn is_half_revoked(&self, name: &PeerName, serial: &str) -> Result<bool, Failure> {
        let (name, serial) = (name.clone(), serial.to_owned());
        let half = move |e: &Entry| e.name == name && e.serial.to_string() == serial && e.session_may_stand;
        self.look(&[], move |db| Ok(db.entries.iter().any(half))).await
    }

    /// How long the certificate of a new peer would count, and what adding it would answer.
    pub(in super::super) async fn foresee_add(
        &self,
        name: &PeerName,
        serial: &Serial,
        planned: &[Change],
    ) -> Result<(u16, Issued), Failure> {
        let (config, name, serial) = (Arc::clone(&self.config), name.clone(), serial.clone());
        self.look(planned, move |db| {
            let authority = Authority::load(&config.ca_cert, &config.ca_key)?;
            let now = OffsetDateTime::now_utc();
            adding(db, &name, &serial, now)?;
            let expires = now + Duration::days(config.cert_days.into());
            let entry = Entry { name, serial, issued: now, expires, revoked: None, session_may_stand: false };
            let template = profile(&config, &authority.chain_pem, NO_KEY)?;
            Ok((config.cert_days, Issued { peer: Peer::try_from(&entry)?, template }))
        })
        .await
    }

    pub(in super::super) async fn foresee_restore(
        &self,
        name: &PeerName,
        serial: &str,
        planned: &[Change],
    ) -> Result<Peer, Failure> {
        let serial = Serial::try_from(serial.to_owned()).map_err(|e| Failure::InvalidArgument(e.into()))?;
        let name = name.clone();
        self.look(planned, move |db| {
            restoring(db, &name, &serial)?;
            Peer::try_from(&*db.entry(&name, &serial)?)
        })
        .await
    }

    async fn look<T: Send + 'static>(
        &self,
        planned: &[Change],
        see: impl FnOnce(&mut Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (config, planned) = (Arc::clone(&self.config), planned.to_vec());
        blocking(move || {
            let mut database = Database::open(&config.database)?;
            planned.iter().for_each(|change| replay(&mut database, change, config.cert_days));
            see(&mut database)
        })
        .await
    }
}

fn replay(database: &mut Database, change: &Change, cert_days: u16) {
    let now = OffsetDateTime::now_utc();
    let of = |entry: &&mut Entry, serial: &str| entry.serial.to_string() == serial;
    match change {
        Change::AddOpenvpn { name, serial, .. } => database.entries.push(Entry {
            name: name.clone(),
            serial: serial.clone(),
            issued: now,
            expires: now + Duration::days(cert_days.into()),
            revoked: None,
            session_may_stand: false,
        }),
        Change::Remove { provider: Kind::Openvpn, name, identity, .. } => {
            let entries = database.entries.iter_mut().filter(|e| e.name == *name);
            entries.filter(|e| of(e, identity)).for_each(|e| {
                (e.revoked, e.session_may_stand) = (Some(now), false);
            });
        }
        Change::Restore { provider: Kind::Openvpn, name, identity, .. } => {
            let entries = database.entries.iter_mut().filter(|e| e.name == *name);
            entries.filter(|e| of(e, identity)).for_each(|e| (e.revoked, e.session_may_stand) = (None, false));
        }
        _ => {}
    }
}

pub(super) fn adding(db: &Database, name: &PeerName, serial: &Serial, now: OffsetDateTime) -> Result<(), Failure> {
    // Planned ones have no serial of their own.
    let planned = serial.to_string().trim_end_matches('0').len() <= 1;
    let used = !planned && db.entries.iter().any(|e| e.serial == *serial);
    if db.active(name).is_some_and(|e| e.expires > now) || used {
        return Err(Failure::Conflict(format!("the OpenVPN peer {name} exists already")));
    }
    Ok(())
}

pub(super) fn restoring(db: &Database, name: &PeerName, serial: &Serial) -> Result<(), Failure> {
    // Of itself only what a crash left of revoking it.
    if db.active(name).is_some_and(|e| e.serial != *serial || !e.session_may_stand) {
        return Err(Failure::Conflict(format!("the OpenVPN peer {name} has another certificate meanwhile")));
    }
    let found = db.entries.iter().any(|e| e.name == *name && e.serial == *serial);
    if found { Ok(()) } else { Err(Failure::NotFound(format!("no certificate {serial} of {name}"))) }
}
