//! Keys and passwords from files and descriptors; tokens have tests of their own.

use super::*;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn private(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn one_password_opens_every_encrypted_key_and_a_descriptor_gives_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<SecretKey> = (0..3).map(|_| SecretKey::generate()).collect();
    let a = private(dir.path(), "a", &at_rest::seal(&keys[0], b"pw").unwrap());
    let b = private(dir.path(), "b", &at_rest::seal(&keys[1], b"pw").unwrap());
    let c = private(dir.path(), "c", &keys[2].to_pem().unwrap());
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"pw\nmore").unwrap();
    drop(write);
    let password = Source::parse(&format!("fd:{}", read.as_raw_fd())).unwrap();
    let found = signers([a.as_str(), &format!("file:{b}"), &c], Some(&password)).unwrap();
    let publics: Vec<_> = found.iter().map(|key| key.public()).collect();
    assert_eq!(publics, keys.iter().map(SecretKey::public).collect::<Vec<_>>());

    let password = Source::parse(&format!("file:{}", private(dir.path(), "pw", "pw\n"))).unwrap();
    assert!(matches!(signer(&c, Some(&password)), Err(Error::UnneededPassword)));
    assert!(matches!(signer(&a, None), Err(Error::NoPassword { .. })));
    assert!(matches!(signers([c.as_str(), &format!("file:{c}")], None), Err(Error::Twice { .. })));
    let empty = Source::parse(&format!("file:{}", private(dir.path(), "empty", "\n"))).unwrap();
    assert!(matches!(signer(&a, Some(&empty)), Err(Error::EmptyPassword)));
}

#[test]
fn references_and_sources_are_read_strictly() {
    for bad in ["", "file:", "env:", "http://example.com/key", "fd:3"] {
        assert!(matches!(signer(bad, None), Err(Error::Reference { .. })), "{bad}");
    }
    for bad in ["", "secret", "env:", "fd:", "fd:-1", "fd:x", "pass:secret"] {
        assert!(matches!(Source::parse(bad), Err(Error::Source { .. })), "{bad}");
    }
    let dir = tempfile::tempdir().unwrap();
    let huge = private(dir.path(), "huge", &"x".repeat(20_000));
    assert!(matches!(signer(&huge, None), Err(Error::TooLarge { .. })));
    std::fs::set_permissions(&huge, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(signer(&huge, None), Err(Error::Readable { mode: 0o604, .. })));
}
