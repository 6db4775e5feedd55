//! Choice, stages, window and the folder, without a repository or a second program.

use std::time::{Duration, SystemTime};

use semver::Version;
use sha2::{Digest as _, Sha256};

use super::candidate::bucket;
use super::choice::{ATTEMPTS, Choice, Entry};
use super::{Versions, Window};

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn entry(text: &str, bytes: &[u8]) -> Entry {
    Entry {
        version: version(text),
        digest: hex::encode(Sha256::digest(bytes)),
        name: format!("viworks-gateway-{text}-linux-amd64"),
        length: bytes.len() as u64,
    }
}

#[test]
fn three_starts_without_a_session_bring_back_what_ran_before() {
    let (old, new) = (entry("0.2.0", b"old"), entry("0.3.0", b"new"));
    let mut choice = Choice { current: Some(old.clone()), confirmed: true, ..Choice::default() };
    choice.select(new.clone());
    for _ in 0..ATTEMPTS {
        assert_eq!(choice.start(&version("0.1.0"), |_| true).as_ref(), Some(&new));
    }
    assert_eq!(choice.start(&version("0.1.0"), |_| true).as_ref(), Some(&old), "back, and without an attempt");
    assert_eq!(choice.refused[0].digest, new.digest);
    assert_eq!(choice.start(&version("0.1.0"), |_| true).as_ref(), Some(&old), "it is confirmed");
}

#[test]
fn without_an_earlier_version_the_installed_one_is_left() {
    let mut choice = Choice::default();
    choice.select(entry("0.3.0", b"new"));
    choice.refuse("a test");
    assert_eq!(choice.start(&version("0.1.0"), |_| true), None);
    assert!(!choice.confirmed && choice.refused.len() == 1);
}

#[test]
fn a_confirmed_version_stays_until_a_package_or_the_repository_says_otherwise() {
    let chosen = || {
        let mut choice = Choice::default();
        choice.select(entry("0.3.0", b"new"));
        choice.confirm();
        choice
    };
    assert!(chosen().start(&version("0.2.9"), |_| true).is_some());
    let mut passed = chosen();
    assert_eq!(passed.start(&version("0.3.0"), |_| true), None, "the package is as new");
    assert_eq!(passed, Choice::default(), "and nothing was refused");
    let mut withdrawn = chosen();
    assert_eq!(withdrawn.start(&version("0.2.9"), |_| false), None);
    assert_eq!(withdrawn.refused.len(), 1);
}

#[test]
fn what_is_refused_is_bounded() {
    let mut choice = Choice::default();
    for n in 0..200_u32 {
        choice.forbid(version("0.2.0"), format!("{n:064x}"), "a test");
    }
    assert_eq!(choice.refused.len(), 64);
    assert_eq!(choice.refused[63].digest, format!("{:064x}", 199));
}

#[test]
fn every_agent_has_a_place_that_another_program_changes() {
    let digest = entry("0.2.0", b"x").digest;
    let within = |percent| (0..1_000).filter(|n| bucket(&format!("web-{n}"), &digest) < percent).count();
    assert_eq!((within(0), within(100)), (0, 1_000));
    assert!((50..200).contains(&within(10)), "{}", within(10));
    assert_ne!(
        (0..64).map(|n| bucket(&format!("web-{n}"), "a")).collect::<Vec<_>>(),
        (0..64).map(|n| bucket(&format!("web-{n}"), "b")).collect::<Vec<_>>()
    );
}

#[test]
fn a_window_may_go_over_midnight() {
    let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 20_000 + hours * 3_600);
    let window = |text: &str| Window::try_from(text.to_owned());
    let night = window("22:00-04:00").unwrap();
    assert!(night.is_open(at(23)) && night.is_open(at(3)) && !night.is_open(at(4)) && !night.is_open(at(12)));
    let noon = window("12:00-13:30").unwrap();
    assert!(noon.is_open(at(12)) && noon.is_open(at(13)) && !noon.is_open(at(14)));
    for bad in ["", "12:00", "25:00-01:00", "12:60-13:00", "12:00-12:00", "a-b"] {
        assert!(window(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_program_is_there_only_with_its_own_bytes() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let versions = Versions::open(dir.path()).unwrap();
    let entry = entry("0.2.0", b"program");
    assert!(versions.verify(&entry).is_err());
    let (mut file, held) = versions.part(&entry).unwrap();
    assert_eq!(held, 0);
    file.write_all(b"prog").unwrap();
    drop(file);
    let (mut file, held) = versions.part(&entry).unwrap();
    assert_eq!(held, 4, "a fetch goes on where it was");
    file.write_all(b"ram").unwrap();
    versions.complete(&entry).unwrap();
    versions.verify(&entry).unwrap();

    let (mut file, _) = versions.part(&entry).unwrap();
    file.write_all(b"pr0gram").unwrap();
    assert!(versions.complete(&entry).is_err(), "other bytes");
    assert_eq!(versions.part(&entry).unwrap().1, 0, "which are not kept");

    // Changed after it was verified: found at the next start.
    std::fs::write(versions.program(&entry.digest), b"pr0gram").unwrap();
    assert!(versions.verify(&entry).is_err());
    let mut choice = Choice::default();
    versions.sweep(&choice, None);
    assert!(!versions.program(&entry.digest).exists());
    choice.select(entry);
    versions.keep(&choice).unwrap();
    assert_eq!(versions.choice().unwrap(), choice);
}
