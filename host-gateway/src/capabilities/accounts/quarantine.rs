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

/// A new name for the home of an account in here.
pub(super) fn place(record: &Record) -> Result<String, Failure> {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let mut noise = [0_u8; 4];
    getrandom::fill(&mut noise).map_err(|e| Failure::Failed(e.to_string()))?;
    Ok(format!("{}-{}-{now}-{}", record.name, record.uid, hex::encode(noise)))
}

/// Whether the account has a home that can be moved in. Changes nothing.
pub(super) fn movable(site: &Site, record: &Record) -> Result<bool, Failure> {
    let Some((homes, _)) = home_of(site, record)? else { return Ok(false) };
    if site.quarantine.exists() {
        let there = open(site)?;
        if there.stat("quarantine")?.st_dev != homes.stat(&record.home)?.st_dev {
            return Err(DirError::OtherFileSystem(record.home.clone()).into());
        }
    }
    Ok(true)
}

/// The directory that the account's home is in, and its name there.
fn home_of<'a>(site: &Site, record: &'a Record) -> Result<Option<(Dir, &'a str)>, Failure> {
    let (parent, name) = home::split(&record.home)?;
    let homes = match Dir::base(site.base())?.walk(parent) {
        Err(DirError::Missing(_)) => return Ok(None),
        walked => walked?,
    };
    let home = match homes.open(name, &record.home) {
        Err(DirError::Missing(_)) => return Ok(None),
        opened => opened?,
    };
    // The parents are root's alone, so the name can't come to mean another directory.
    owned(site, &home, record, &record.home)?;
    Ok(Some((homes, name)))
}

/// A home is its account's; one that was never given to it is the gateway's, and nobody
/// else can enter it.
fn owned(site: &Site, home: &Dir, record: &Record, what: &str) -> Result<(), Failure> {
    let stat = home.stat(what)?;
    let unfinished = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    if unfinished { Ok(()) } else { Ok(home.owned_by(site.owner(record.uid, record.gid).0, what)?) }
}

/// Move the account's home to its foreseen place.
pub(super) fn put(site: &Site, record: &Record, entry: &str) -> Result<(), Failure> {
    let Some((homes, name)) = home_of(site, record)? else {
        return Err(DirError::Missing(record.home.clone()).into());
    };
    let quarantine = open(site)?;
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
        removed_at: time::OffsetDateTime::now_utc().unix_timestamp(),
    };
    let json = serde_json::to_vec_pretty(&note).map_err(|e| Failure::Failed(e.to_string()))?;
    // The note first: a home without one would be nobody's.
    quarantine.write(&note_of(entry), &json, 0o600, None, entry)?;
    if let Err(error) = homes.move_to(name, &quarantine, entry, &record.home) {
        let _ = quarantine.unlink(&note_of(entry), entry);
        return Err(error.into());
    }
    Ok(())
}

/// Whether a home waits here under that name.
pub(super) fn has(site: &Site, entry: &str) -> Result<bool, Failure> {
    Ok(site.quarantine.exists() && open(site)?.has(entry, entry)?)
}

/// Move a home back to where it was.
pub(super) fn take(site: &Site, record: &Record, entry: &str) -> Result<(), Failure> {
    let (parent, name) = home::split(&record.home)?;
    let quarantine = open(site)?;
    let homes = Dir::base(site.base())?.walk(parent)?;
    let home = quarantine.open(entry, entry)?;
    owned(site, &home, record, entry)?;
    quarantine.move_to(entry, &homes, name, &record.home)?;
    Ok(quarantine.unlink(&note_of(entry), entry)?)
}

/// A home that waited too long, and is gone now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    pub account: String,
    pub uid: u32,
    /// Unix seconds.
    pub removed_at: i64,
}

/// Remove what came in before `oldest` (Unix seconds), at most so many of them.
pub(super) fn sweep(site: &Site, oldest: i64, at_most: usize) -> Result<Vec<Swept>, Failure> {
    let mut swept = Vec::new();
    if !site.quarantine.exists() {
        return Ok(swept);
    }
    let quarantine = open(site)?;
    for (entry, note) in notes(site, &quarantine)? {
        if note.removed_at >= oldest || swept.len() >= at_most {
            continue;
        }
        // Works by descriptor and follows no links; nobody else can enter the quarantine.
        match std::fs::remove_dir_all(site.quarantine.join(&entry)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%entry, error = %e, "a home in quarantine is left");
                continue;
            }
            // The home first: without its note its uid could be given away.
            _ => quarantine.unlink(&note_of(&entry), &entry)?,
        }
        swept.push(Swept { account: note.name, uid: note.uid, removed_at: note.removed_at });
    }
    Ok(swept)
}

fn notes(site: &Site, quarantine: &Dir) -> Result<Vec<(String, Note)>, Failure> {
    let what = site.quarantine.display().to_string();
    let me = rustix::process::geteuid().as_raw();
    let mut notes = Vec::new();
    for name in quarantine.names(MAX_ENTRIES, &what)? {
        let Some(entry) = name.strip_suffix(".json") else { continue };
        let text = quarantine.read(&name, me, MAX_NOTE, &name).ok().flatten();
        if let Some(note) = text.and_then(|t| serde_json::from_str(&t).ok()) {
            notes.push((entry.to_owned(), note));
        }
    }
    Ok(notes)
}

/// The uids that homes in the quarantine belong to: not to be given to anybody else.
pub(super) fn uids(site: &Site) -> Result<Vec<u32>, Failure> {
    if !site.quarantine.exists() {
        return Ok(Vec::new());
    }
    let quarantine = open(site)?;
    Ok(notes(site, &quarantine)?.into_iter().map(|(_, note)| note.uid).collect())
}

fn note_of(entry: &str) -> String {
    format!("{entry}.json")
}
