//! The key parser against keys that ssh-keygen made, keys that are built here, and noise.

use super::*;
use proptest::prelude::*;

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

fn line(kind: &str, parts: &[&[u8]]) -> String {
    let mut body = string(kind.as_bytes());
    parts.iter().for_each(|p| body.extend(string(p)));
    format!("{kind} {}", STANDARD.encode(body))
}

fn point(length: usize) -> Vec<u8> {
    let mut point = vec![7; length];
    point[0] = 4;
    point
}

fn modulus(bits: usize) -> Vec<u8> {
    let mut n = vec![0xff; bits / 8];
    n.insert(0, 0);
    n
}

#[test]
fn every_allowed_type_passes_and_is_written_as_it_was_read() {
    let good = [
        line("ssh-ed25519", &[&[9; 32]]),
        line("ssh-rsa", &[&[1, 0, 1], &modulus(2_048)]),
        line("ecdsa-sha2-nistp256", &[b"nistp256", &point(65)]),
        line("ecdsa-sha2-nistp384", &[b"nistp384", &point(97)]),
        line("ecdsa-sha2-nistp521", &[b"nistp521", &point(133)]),
        line("sk-ssh-ed25519@openssh.com", &[&[9; 32], b"ssh:"]),
        line("sk-ecdsa-sha2-nistp256@openssh.com", &[b"nistp256", &point(65), b"ssh:"]),
    ];
    for key in good {
        assert_eq!(parse(&key).as_deref(), Ok(key.as_str()));
        let named = format!("{key} ann@example.com laptop");
        assert_eq!(parse(&named).as_deref(), Ok(named.as_str()));
    }
}

#[test]
fn what_is_not_exactly_one_plain_key_is_refused() {
    let key = line("ssh-ed25519", &[&[9; 32]]);
    let body = key.split_once(' ').map(|(_, b)| b.to_owned()).unwrap_or_default();
    let bad = [
        (String::new(), KeyError::Type),
        ("ssh-ed25519".into(), KeyError::Type),
        (format!("command=\"id\" {key}"), KeyError::Type),
        (format!("no-pty,from=\"192.0.2.1\" {key}"), KeyError::Type),
        (format!(" {key}"), KeyError::Type),
        (format!("# {key}"), KeyError::Type),
        (format!("ssh-dss {body}"), KeyError::Type),
        (format!("ssh-ed25519-cert-v01@openssh.com {body}"), KeyError::Type),
        (format!("{key}\n{key}"), KeyError::Control),
        (format!("{key}\r"), KeyError::Control),
        (format!("{key}\tann"), KeyError::Control),
        (format!("{key}\0"), KeyError::Control),
        (format!("ssh-ed25519  {body}"), KeyError::Body),
        (key.trim_end_matches('=')[..key.len() - 4].to_owned(), KeyError::Body),
        (format!("ssh-rsa {body}"), KeyError::Body),
        (format!("ssh-ed25519 {}", body.replace('A', "-")), KeyError::Base64),
        (line("ssh-ed25519", &[&[9; 31]]), KeyError::Body),
        (line("ssh-ed25519", &[&[9; 32], b"more"]), KeyError::Body),
        (line("ssh-rsa", &[&[1, 0, 1], &modulus(1_024)]), KeyError::Rsa),
        (line("ssh-rsa", &[&[1], &modulus(2_048)]), KeyError::Rsa),
        (line("ssh-rsa", &[&[2], &modulus(2_048)]), KeyError::Rsa),
        (line("ssh-rsa", &[&[1, 0, 1], &[0xff; 256]]), KeyError::Body),
        (line("ecdsa-sha2-nistp256", &[b"nistp384", &point(65)]), KeyError::Body),
        (line("ecdsa-sha2-nistp256", &[b"nistp256", &[7; 65]]), KeyError::Body),
        (format!("{key} {}", "c".repeat(257)), KeyError::TooLong),
        (format!("{key} {}", "c".repeat(5_000)), KeyError::TooLong),
    ];
    for (key, error) in bad {
        assert_eq!(parse(&key), Err(error), "{key:?}");
    }
}

#[test]
fn keys_of_ssh_keygen_pass() {
    let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let file = dir.path().join(kind);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "ann@example.com", "-t", kind, "-f"])
            .arg(&file)
            .status();
        // Where there is no ssh-keygen, the keys built above must do.
        let Ok(true) = made.map(|s| s.success()) else { return };
        let Ok(text) = std::fs::read_to_string(file.with_extension("pub")) else { panic!("no public key") };
        assert_eq!(parse(text.trim_end()).as_deref(), Ok(text.trim_end()));
    }
}

proptest! {
    #[test]
    fn noise_is_never_a_key_and_never_a_panic(noise in ".{0,300}") {
        prop_assert!(parse(&noise).is_err());
    }

    #[test]
    fn noise_behind_a_type_is_never_a_key(kind in 0..3_usize, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let kind = ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"][kind];
        let is_err = parse(&format!("{kind} {}", STANDARD.encode(body))).is_err();
        prop_assert!(is_err);
    }

    #[test]
    fn what_passes_is_one_line_that_passes_again(bytes in any::<[u8; 32]>(), comment in "[^\\p{Cc}]{0,60}") {
        let key = format!("{} {comment}", line("ssh-ed25519", &[&bytes]));
        let once = parse(&key);
        prop_assert!(once.is_ok());
        let once = once.unwrap_or_default();
        prop_assert!(!once.contains(['\n', '\r']) && once.starts_with("ssh-ed25519 "));
        prop_assert_eq!(parse(&once), Ok(once));
    }

    #[test]
    fn a_key_with_any_byte_of_its_frame_changed_is_refused(at in 0..19_usize, flip in 1..=255_u8) {
        let mut body = string(b"ssh-ed25519");
        body.extend(string(&[9; 32]));
        body[at] ^= flip;
        let is_err = parse(&format!("ssh-ed25519 {}", STANDARD.encode(body))).is_err();
        prop_assert!(is_err);
    }
}
