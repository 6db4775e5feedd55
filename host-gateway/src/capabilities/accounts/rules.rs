//! What a name, a comment, a shell and a password hash may look like. useradd accepts
//! `x;reboot`, `UPPER` and `1abc`, so nothing reaches it that was not checked here.

use crate::failure::Failure;

/// The longest login name that utmp and the tools agree on.
const MAX_NAME: usize = 32;
const MAX_COMMENT: usize = 128;
const MAX_PATH: usize = 255;
/// Below are root, the system's accounts and the services'.
pub(super) const MIN_UID: u32 = 1_000;
pub(super) const NOBODY: u32 = 65_534;
/// `nobody`, and the values that mean "no id" to some system call.
const NO_UIDS: [u32; 3] = [NOBODY, 65_535, u32::MAX];

/// Names that belong to the system, or that sudoers, PAM or device files give rights to: a
/// new account gets a group of its own name, and a group `admin` or `docker` is root.
const RESERVED: &[&str] = &[
    "adm",
    "admin",
    "administrator",
    "audio",
    "backup",
    "bin",
    "cdrom",
    "crontab",
    "daemon",
    "dbus",
    "dialout",
    "dip",
    "disk",
    "docker",
    "fax",
    "floppy",
    "ftp",
    "games",
    "gnats",
    "halt",
    "input",
    "irc",
    "kmem",
    "kvm",
    "libvirt",
    "libvirt-qemu",
    "list",
    "lp",
    "lpadmin",
    "lxd",
    "mail",
    "man",
    "messagebus",
    "netdev",
    "news",
    "nobody",
    "nogroup",
    "operator",
    "plugdev",
    "polkitd",
    "postgres",
    "proxy",
    "render",
    "root",
    "sasl",
    "sgx",
    "shadow",
    "shutdown",
    "src",
    "sshd",
    "staff",
    "sudo",
    "sync",
    "sys",
    "tape",
    "toor",
    "tty",
    "users",
    "utmp",
    "uucp",
    "video",
    "viworks",
    "voice",
    "wheel",
    "www-data",
];

/// A login or group name: `[a-z_][a-z0-9_-]*`, at most 32 characters.
///
/// # Errors
/// `invalid-argument`, with the rule.
pub(super) fn name(text: &str) -> Result<(), Failure> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if first && rest && text.len() <= MAX_NAME {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Failure::InvalidArgument(format!(
        "name {shown:?} is not a lower-case letter or '_' and then at most {} of a-z, 0-9, '_' and '-'",
        MAX_NAME - 1
    )))
}

/// Whether an account of this name is the system's, whoever asks.
pub(super) fn reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with("systemd-")
}

/// Whether an account with this uid is the system's, whoever asks.
pub(super) fn system_uid(uid: u32) -> bool {
    uid < MIN_UID || NO_UIDS.contains(&uid)
}

/// The GECOS field: one line without `:`.
///
/// # Errors
/// `invalid-argument`.
pub(super) fn comment(text: &str) -> Result<(), Failure> {
    if text.len() > MAX_COMMENT || text.contains(':') || text.chars().any(char::is_control) {
        return Err(Failure::InvalidArgument(format!(
            "comment is longer than {MAX_COMMENT} bytes or has ':' or control characters"
        )));
    }
    Ok(())
}

/// An absolute path as it may stand in passwd(5): no `.`, `..`, empty or odd component.
///
/// # Errors
/// `invalid-argument`.
pub(super) fn path(what: &str, text: &str) -> Result<(), Failure> {
    let plain = |c: &str| {
        !c.is_empty() && c != "." && c != ".." && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@".contains(&b))
    };
    let good = text.len() <= MAX_PATH && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    if good { Ok(()) } else { Err(Failure::InvalidArgument(format!("{what} is not a plain absolute path"))) }
}

/// A crypt(5) hash of a kind that is still considered safe: yescrypt, SHA-512, SHA-256,
/// bcrypt. Never a plain password, never an empty one, never `!` or `*`.
///
/// # Errors
/// `invalid-argument`; the text is not repeated.
pub(super) fn password_hash(text: &str) -> Result<(), Failure> {
    let good = match text.split('$').collect::<Vec<_>>()[..] {
        ["", "y", params, salt, hash] => crypt64(params, 1..=16) && crypt64(salt, 1..=86) && crypt64(hash, 43..=43),
        ["", "6", salt, hash] => crypt64(salt, 1..=16) && crypt64(hash, 86..=86),
        ["", "6", rounds, salt, hash] => sha_rounds(rounds) && crypt64(salt, 1..=16) && crypt64(hash, 86..=86),
        ["", "5", salt, hash] => crypt64(salt, 1..=16) && crypt64(hash, 43..=43),
        ["", "5", rounds, salt, hash] => sha_rounds(rounds) && crypt64(salt, 1..=16) && crypt64(hash, 43..=43),
        ["", "2b", cost, hash] => {
            cost.len() == 2 && cost.parse().is_ok_and(|c: u8| (4..=31).contains(&c)) && crypt64(hash, 53..=53)
        }
        _ => false,
    };
    if good {
        return Ok(());
    }
    Err(Failure::InvalidArgument("password hash is not a whole crypt(5) hash of kind $y$, $6$, $5$ or $2b$".into()))
}

fn crypt64(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

fn sha_rounds(text: &str) -> bool {
    text.strip_prefix("rounds=")
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|n| n.parse().ok())
        .is_some_and(|n: u32| (1_000..=999_999_999).contains(&n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for good in ["a", "deploy", "_svc", "a-b_c9", &"a".repeat(32)] {
            assert!(name(good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "-x",
            "--help",
            "1abc",
            "UPPER",
            "ünï",
            "a b",
            "a$",
            "x;reboot",
            "../x",
            "a/b",
            "a:b",
            "a\nb",
            "a\0",
            ".",
            "..",
            "a.b",
            "$(id)",
            "a,b",
            &"a".repeat(33),
            "а", // the last is Cyrillic
        ];
        for bad in bad {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_and_ids_of_the_system_are_reserved() {
        for system in ["root", "nobody", "sudo", "wheel", "admin", "docker", "systemd-network"] {
            assert!(reserved(system), "{system}");
        }
        assert!(!reserved("deploy"));
        for uid in [0, 1, 999, 65_534, 65_535, u32::MAX] {
            assert!(system_uid(uid), "{uid}");
        }
        assert!(!system_uid(1_000) && !system_uid(59_999));
    }

    #[test]
    fn only_whole_hashes_of_safe_kinds_pass() {
        let (h43, h86, h53) = ("a".repeat(43), "b".repeat(86), "c".repeat(53));
        for good in [
            format!("$y$j9T$salt./${h43}"),
            format!("$6$salt${h86}"),
            format!("$6$rounds=5000$salt${h86}"),
            format!("$5$salt${h43}"),
            format!("$2b$12${h53}"),
        ] {
            assert!(password_hash(&good).is_ok(), "{good}");
        }
        for bad in [
            String::new(),
            "secret".into(),
            "!".into(),
            "*".into(),
            format!("$1$salt${h43}"),
            format!("$6$salt${h43}"),
            format!("$6$sa:lt${h86}"),
            format!("$6$salt${h86}\n"),
            format!("$6$rounds=10$salt${h86}"),
            format!("$2b$99${h53}"),
            format!("!$6$salt${h86}"),
        ] {
            assert!(password_hash(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn comments_and_paths_are_one_plain_field() {
        assert!(comment("Ann Müller, ops").is_ok());
        assert!(comment("a:b").is_err() && comment("a\nb").is_err() && comment(&"x".repeat(129)).is_err());
        assert!(path("shell", "/bin/bash").is_ok());
        for bad in ["bin/bash", "/", "/bin/../x", "/bin//x", "/bin/a b", "/a:b", "/a\n", "/bin/"] {
            assert!(path("shell", bad).is_err(), "{bad:?}");
        }
    }
}
