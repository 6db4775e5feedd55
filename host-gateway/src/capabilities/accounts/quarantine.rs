//! Where homes of removed accounts wait to be brought back: a directory that only the
//! gateway can enter, holding each home beside a JSON record of whose it was. Homes move by
//! rename within one file system, never by copying.

use serde::{Deserialize, Serialize};

use super::Site;
use super::change::Record;
use super::dir::{Dir, DirError};
use super::home;
use crate::failure::Failure;

const MAX_ENTRIES: usize = 100_000;
const MAX_NOTE: u64 = 64 * 1024;

/// What stands beside a home. Hashes stay out: the journal's inverse has them.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    name: String,
    uid: u32,
    gid: u32,
    group: String,
    groups: Vec<String>,
    comment: String,
    home: String,
    shell: String,
    /// Unix seconds.
    removed_at: i64,
}

/// Open the quarantine, making it if it is not there.
fn open(site: &Site) -> Result<Dir, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = &site.quarantine;
    let what = path.display().to_string();
    let failed = |e: std::io::Error| Failure::Unavailable(format!("quarantine {what}: {e}"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let dir = Dir::base(path)?;
    dir.owned_by(rustix::process::geteuid().as_raw(), &what)?;
    if dir.stat(&what)?.st_mode & 0o077 != 0 {
        return Err(Failure::Unavailable(format!("quarantine {what} can be entered by others: it needs mode 0700")));
    }
    Ok(dir)
}

/// Move the account's home in. Gives its name here; `None` if there is no home to move.
pub(super) fn put(site: &Site, record: &Record) -> Result<Option<String>, Failure> {
    let (parent, name) = home::split(&record.home)?;
    let homes = match Dir::base(site.base())?.walk(parent) {
        Err(DirError::Missing(_)) => return Ok(None),
        walked => walked?,
    };
    let moved = match homes.open(name, &record.home) {
        Err(DirError::Missing(_)) => return Ok(None),
        opened => opened?,
    };
    // The parents are root's alone, so the name can't come to mean another directory.
    moved.owned_by(site.owner(record.uid, record.gid).0, &record.home)?;
    let quarantine = open(site)?;

    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let mut noise = [0_u8; 4];
    getrandom::fill(&mut noise).map_err(|e| Failure::Failed(e.to_string()))?;
    let entry = format!("{}-{}-{now}-{}", record.name, record.uid, hex::encode(noise));
    let note = Note {
        version: 1,
        name: record.name.clone(),
        uid: record.uid,
        gid: record.gid,
        group: record.group.clone(),
        groups: record.groups.clone(),
        comment: record.comment.clone(),
        home: record.home.clone(),
        shell: record.shell.clone(),
        removed_at: now,
    };
    let json = serde_json::to_vec_pretty(&note).map_err(|e| Failure::Failed(e.to_string()))?;
    // The note first: a home without one would be nobody's.
    quarantine.write(&note_of(&entry), &json, 0o600, None, &entry)?;
    if let Err(error) = homes.move_to(name, &quarantine, &entry, &record.home) {
        let _ = quarantine.unlink(&note_of(&entry), &entry);
        return Err(error.into());
    }
    Ok(Some(entry))
}

/// Move a home back to where it was.
pub(super) fn take(site: &Site, record: &Record, entry: &str) -> Result<(), Failure> {
    let (parent, name) = home::split(&record.home)?;
    let quarantine = open(site)?;
    let homes = Dir::base(site.base())?.walk(parent)?;
    let home = quarantine.open(entry, entry)?;
    home.owned_by(site.owner(record.uid, record.gid).0, entry)?;
    quarantine.move_to(entry, &homes, name, &record.home)?;
    Ok(quarantine.unlink(&note_of(entry), entry)?)
}

/// The uids that homes in the quarantine belong to: not to be given to anybody else.
pub(super) fn uids(site: &Site) -> Result<Vec<u32>, Failure> {
    if !site.quarantine.exists() {
        return Ok(Vec::new());
    }
    let quarantine = open(site)?;
    let what = site.quarantine.display().to_string();
    let me = rustix::process::geteuid().as_raw();
    let notes = quarantine.names(MAX_ENTRIES, &what)?.into_iter().filter(|n| n.ends_with(".json"));
    let read = |n: String| quarantine.read(&n, me, MAX_NOTE, &n).ok().flatten();
    Ok(notes.filter_map(read).filter_map(|t| serde_json::from_str::<Note>(&t).ok()).map(|n| n.uid).collect())
}

fn note_of(entry: &str) -> String {
    format!("{entry}.json")
}
