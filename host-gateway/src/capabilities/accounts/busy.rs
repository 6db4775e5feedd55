//! Who is in use: running processes from /proc, logins from utmp(5). Removing an account
//! under a running process would leave the process with a uid that the next account gets.

use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;

const UTMP: &str = "/run/utmp";
/// Bounds what is read of utmp.
const MAX_UTMP: u64 = 4 * 1024 * 1024;
/// glibc's `struct utmp` on 64-bit Linux.
const RECORD: usize = 384;
const USER_PROCESS: i16 = 7;

/// # Errors
/// `conflict` if the account runs something or is logged in; `unavailable` if that can't
/// be told.
pub(super) fn refuse_if_in_use(name: &str, uid: u32) -> Result<(), Failure> {
    let running = processes(uid).map_err(|e| Failure::Unavailable(format!("/proc: {e}")))?;
    if running > 0 {
        return Err(Failure::Conflict(format!("account {name} has {running} running processes")));
    }
    if logged_in(Path::new(UTMP), name) {
        return Err(Failure::Conflict(format!("account {name} is logged in")));
    }
    Ok(())
}

/// How many processes have this uid: real, effective, saved or for files.
fn processes(uid: u32) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process = path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        // One that ended meanwhile is not running.
        if !is_process {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        let uids = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap_or_default();
        count += usize::from(uids.split_whitespace().any(|u| u.parse() == Ok(uid)));
    }
    Ok(count)
}

/// Whether utmp has a login of this name whose process is still there. Hosts without utmp
/// have only processes.
fn logged_in(utmp: &Path, name: &str) -> bool {
    let mut bytes = Vec::new();
    let Ok(file) = std::fs::File::open(utmp) else { return false };
    if file.take(MAX_UTMP).read_to_end(&mut bytes).is_err() {
        return false;
    }
    bytes.chunks_exact(RECORD).any(|record| {
        let kind = i16::from_ne_bytes([record[0], record[1]]);
        let pid = i32::from_ne_bytes([record[4], record[5], record[6], record[7]]);
        let user = record[44..76].split(|b| *b == 0).next().unwrap_or_default();
        kind == USER_PROCESS && user == name.as_bytes() && Path::new(&format!("/proc/{pid}")).exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, pid: u32, user: &str) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[4..8].copy_from_slice(&pid.to_ne_bytes());
        record[44..44 + user.len()].copy_from_slice(user.as_bytes());
        record
    }

    #[test]
    fn own_processes_are_found() {
        let me = rustix::process::getuid().as_raw();
        assert!(processes(me).is_ok_and(|n| n >= 1));
        assert!(processes(3_999_999_999).is_ok_and(|n| n == 0));
        assert!(matches!(refuse_if_in_use("me", me), Err(Failure::Conflict(_))));
    }

    #[test]
    fn a_login_counts_while_its_process_lives() {
        let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
        let file = dir.path().join("utmp");
        let alive = std::process::id();
        let records = [record(8, alive, "dead"), record(7, u32::MAX >> 1, "stale"), record(7, alive, "ann")].concat();
        assert!(std::fs::write(&file, records).is_ok());
        assert!(logged_in(&file, "ann"));
        assert!(!logged_in(&file, "an") && !logged_in(&file, "dead") && !logged_in(&file, "stale"));
        assert!(!logged_in(&dir.path().join("none"), "ann"));
    }
}
