//! Home directories and `authorized_keys`. A home is complete before it is given to its
//! user; in a home that is a user's, every step refuses links and foreign owners, since
//! its user can put anything there at any moment.

use std::path::Path;

use super::Site;
use super::change::NewAccount;
use super::database::Entry;
use super::dir::{Dir, DirError};
use crate::failure::Failure;

/// Bounds an `authorized_keys` that can be replaced: its text is kept to be put back.
const MAX_KEYS_FILE: u64 = 64 * 1024;
const SSH: &str = ".ssh";
const KEYS: &str = "authorized_keys";

/// Bounds what is copied into a new home.
const SKELETON_ENTRIES: usize = 64;
const SKELETON_FILE: u64 = 64 * 1024;

/// The directory that homes are made in. Made ready where the root is a prefix.
pub(super) fn root(site: &Site, home_root: &str) -> Result<Dir, DirError> {
    let base = Dir::base(site.base())?;
    if site.root.is_some() { base.walk_making(home_root) } else { base.walk(home_root) }
}

/// The same without making anything: `None` where a prefix root has none yet.
pub(super) fn look(site: &Site, home_root: &str) -> Result<Option<Dir>, DirError> {
    match Dir::base(site.base())?.walk(home_root) {
        Err(DirError::Missing(_)) if site.root.is_some() => Ok(None),
        walked => walked.map(Some),
    }
}

/// Whether anything is where a home is to come back to.
pub(super) fn exists(site: &Site, home: &str) -> Result<bool, Failure> {
    let (parent, name) = split(home)?;
    Ok(Dir::base(site.base())?.walk(parent)?.has(name, home)?)
}

/// Split a home's path into the directory it is in and its name there.
///
/// # Errors
/// `conflict` for what is not a plain path of at least two components.
pub(super) fn split(home: &str) -> Result<(&str, &str), Failure> {
    super::rules::path("home", home).map_err(|e| Failure::Conflict(e.to_string()))?;
    match home.rsplit_once('/') {
        Some((parent, name)) if !parent.is_empty() => Ok((parent, name)),
        _ => Err(Failure::Conflict(format!("home {home} is directly in /"))),
    }
}

/// Make the home of a new account. On failure nothing of it is left.
pub(super) fn create(site: &Site, new: &NewAccount, owner: (u32, u32)) -> Result<(), Failure> {
    let what = format!("{}/{}", new.home_root, new.name);
    let parent = root(site, &new.home_root)?;
    let home = parent.make(&new.name, &what)?;
    // Still root's with mode 0700: nobody else can reach into it until it is given away,
    // which is the last step.
    let filled = fill(site, new, &home, owner, &what).and_then(|()| Ok(home.give_to(owner, &what)?));
    if filled.is_err() {
        discard(site, &new.home_root, &new.name);
    }
    filled
}

fn fill(site: &Site, new: &NewAccount, home: &Dir, owner: (u32, u32), what: &str) -> Result<(), Failure> {
    if let Some(skeleton) = &site.skeleton {
        copy_skeleton(skeleton, home, owner, what)?;
    }
    if !new.ssh_keys.is_empty() {
        let ssh = match home.make(SSH, what) {
            Err(DirError::Exists(_)) => home.open(SSH, what)?,
            made => made?,
        };
        ssh.write(KEYS, file_of(&new.ssh_keys).as_bytes(), 0o600, Some(owner), what)?;
        ssh.set_mode(0o700, what)?;
        ssh.give_to(owner, what)?;
    }
    Ok(())
}

/// The regular files of the skeleton, one level deep: links and the rest are left out.
fn copy_skeleton(skeleton: &Path, home: &Dir, owner: (u32, u32), what: &str) -> Result<(), Failure> {
    let from = Dir::base(skeleton)?;
    let shown = skeleton.display().to_string();
    for name in from.names(SKELETON_ENTRIES, &shown)? {
        let Some(uid) = from.owner_of(&name) else { continue };
        match from.read(&name, uid, SKELETON_FILE, &format!("{shown}/{name}")) {
            Ok(Some(text)) => home.write(&name, text.as_bytes(), 0o644, Some(owner), what)?,
            Ok(None) | Err(DirError::NotAFile(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Take away a home that was never given to its user, as far as that goes.
pub(super) fn discard(site: &Site, home_root: &str, name: &str) {
    // `remove_dir_all` works by descriptor and follows no links; the parents are root's.
    let path = site.base().join(home_root.trim_start_matches('/')).join(name);
    if let Err(error) = std::fs::remove_dir_all(&path) {
        tracing::warn!(path = %path.display(), %error, "a half-made home is left");
    }
}

/// The text of `authorized_keys`; `None` if there is none.
pub(super) fn read_keys(site: &Site, entry: &Entry) -> Result<Option<String>, Failure> {
    let owner = site.owner(entry.uid, entry.gid);
    let home = open(site, entry)?;
    let what = format!("{}/{SSH}", entry.home);
    let ssh = match home.open(SSH, &what) {
        Err(DirError::Missing(_)) => return Ok(None),
        opened => opened?,
    };
    ssh.owned_by(owner.0, &what)?;
    Ok(ssh.read(KEYS, owner.0, MAX_KEYS_FILE, &format!("{what}/{KEYS}"))?)
}

/// Replace `authorized_keys`, or remove it. What is there must be a file of the user's.
pub(super) fn write_keys(site: &Site, entry: &Entry, text: Option<&str>) -> Result<(), Failure> {
    let owner = site.owner(entry.uid, entry.gid);
    let home = open(site, entry)?;
    let what = format!("{}/{SSH}", entry.home);
    let ssh = match (home.open(SSH, &what), text) {
        (Err(DirError::Missing(_)), None) => return Ok(()),
        (Err(DirError::Missing(_)), Some(_)) => {
            // Held by descriptor from here on: should its user swap the name later, what is
            // filled and given away is still this directory. A swap between making and
            // opening is caught: what is given away must be this gateway's, and empty.
            let made = home.make(SSH, &what)?;
            made.owned_by(rustix::process::geteuid().as_raw(), &what)?;
            if !made.names(1, &what)?.is_empty() {
                return Err(DirError::Exists(what).into());
            }
            made.give_to(owner, &what)?;
            made
        }
        (opened, _) => opened?,
    };
    ssh.owned_by(owner.0, &what)?;
    match text {
        Some(text) => ssh.write(KEYS, text.as_bytes(), 0o600, Some(owner), &what)?,
        None => ssh.unlink(KEYS, &what)?,
    }
    Ok(())
}

/// One key a line.
pub(super) fn file_of(keys: &[String]) -> String {
    keys.iter().map(|k| format!("{k}\n")).collect()
}

/// The home of an account: a real directory that belongs to it.
pub(super) fn open(site: &Site, entry: &Entry) -> Result<Dir, Failure> {
    let (parent, name) = split(&entry.home)?;
    let home = Dir::base(site.base())?.walk(parent)?.open(name, &entry.home)?;
    home.owned_by(site.owner(entry.uid, entry.gid).0, &entry.home)?;
    Ok(home)
}
