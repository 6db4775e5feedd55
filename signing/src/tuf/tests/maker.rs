//! Drafts, thresholds met one person at a time, and what is not published.

use super::*;
use crate::tuf::repo::{Error, ROLES};

fn signer(key: &SecretKey) -> [&dyn Signer; 1] {
    [key]
}

#[test]
fn people_sign_one_after_another_and_only_then_is_it_published() {
    let mut site = Site::new();
    let version = semver::Version::new(1, 0, 0);
    let release = Release { plugin: "p", version: &version, epoch: 0, sequence: 1, component: b"c", statements: b"s" };
    site.repo.add(&release, day(0)).unwrap();
    let (online, releases) = (["snapshot", "timestamp"], &site.keys[RELEASES]);
    let online: Vec<&dyn Signer> = online.iter().map(|role| &site.keys[role][0] as &dyn Signer).collect();

    assert_eq!(site.repo.sign(&signer(&releases[0])).unwrap(), 1);
    assert_eq!(site.repo.sign(&signer(&releases[0])).unwrap(), 0, "once is enough");
    let published = site.repo.publish(&online, day(0)).unwrap();
    let [missing] = published.missing.as_slice() else { panic!("{published:?}") };
    assert_eq!((missing.role.as_str(), missing.count), (RELEASES, 1));
    assert_eq!(missing.keys, [releases[1].public().id()]);
    assert_eq!(published.files, ["2.snapshot.json", "timestamp.json"].map(String::from)[1..], "only the time goes on");

    // The second person has only what was written down.
    let written = site.repo.take_written();
    let targets = written.targets.clone();
    let store = |name: &str| site.targets.get(name).or_else(|| targets.get(name)).cloned();
    let mut repo = Repository::open(site.repo.metadata().clone(), &written.pending, Days::default(), store).unwrap();
    assert_eq!(repo.sign(&signer(&releases[1])).unwrap(), 1);
    let published = repo.publish(&online, day(0)).unwrap();
    assert_eq!(published.files, ["2.releases.json", "2.snapshot.json", "timestamp.json"]);
    assert!(repo.take_written().gone.contains("2.releases.json"));
}

#[test]
fn an_urgent_revocation_does_not_wait_for_another_draft() {
    let mut site = Site::new();
    site.repo.refresh("targets", day(0)).unwrap();
    site.repo.revoke(|r| r.revoke_key("a".repeat(64)), day(0)).unwrap();
    let keys: Vec<&dyn Signer> =
        [REVOCATION, "snapshot", "timestamp"].iter().map(|role| &site.keys[role][0] as &dyn Signer).collect();
    site.repo.sign(&keys).unwrap();
    let published = site.repo.publish(&keys, day(0)).unwrap();
    assert!(published.files.contains(&"2.revocation.json".to_owned()), "{published:?}");
    assert!(published.missing.iter().any(|missing| missing.role == "targets"));
}

#[test]
fn one_key_never_holds_two_roles() {
    let mut site = Site::new();
    let key = site.keys["snapshot"][0].public();
    for role in ["timestamp", RELEASES, "root"] {
        let error = site.repo.clone().rotate(role, &[key], &[], None, day(0)).unwrap_err();
        assert_eq!(error.code(), "E_TUF_KEY_ROLES", "{role}");
    }
    let stranger = SecretKey::generate().public().id();
    assert!(matches!(site.repo.rotate("root", &[], &[stranger], None, day(0)), Err(Error::NoKey { .. })));
    let all: Vec<String> = site.keys["root"].iter().map(|key| key.public().id()).collect();
    assert_eq!(site.repo.rotate("root", &[], &all, None, day(0)).unwrap_err().code(), "E_TUF_FORMAT");
}

#[test]
fn a_root_needs_its_old_keys_and_its_new_ones() {
    let mut site = Site::new();
    let new = generate(3);
    let gone: Vec<String> = site.keys["root"].iter().map(|key| key.public().id()).collect();
    let public: Vec<_> = new.iter().map(SecretKey::public).collect();
    site.repo.rotate("root", &public, &gone, None, day(0)).unwrap();
    let new: Vec<&dyn Signer> = new.iter().map(|key| key as &dyn Signer).collect();
    let old = site.signers();
    for (keys, lacking) in [(&new, "root (its keys before)"), (&old, "root")] {
        let mut repo = site.repo.clone();
        repo.sign(keys).unwrap();
        let published = repo.publish(&old, day(0)).unwrap();
        assert_eq!(published.missing.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(), [lacking]);
        assert!(!published.files.contains(&"2.root.json".to_owned()));
    }
    let mut repo = site.repo.clone();
    repo.sign(&old).unwrap();
    repo.sign(&new).unwrap();
    assert!(repo.publish(&old, day(0)).unwrap().files.contains(&"2.root.json".to_owned()));
}

#[test]
fn a_role_whose_key_goes_is_drafted_anew() {
    let mut site = Site::new();
    site.add("1.0.0", 1, 0);
    let new = SecretKey::generate();
    let gone = site.keys[RELEASES][0].public().id();
    site.repo.rotate(RELEASES, &[new.public()], &[gone], None, day(0)).unwrap();
    site.keys.get_mut(RELEASES).unwrap()[0] = new;
    site.publish(0);
    let (trusted, _) = site.update(State::default(), 0).unwrap();
    assert!(trusted.target("sample-1.0.0.wasm").is_some());
    assert_eq!((trusted.versions().roles[RELEASES], trusted.versions().roles["targets"]), (3, 2));
}

#[test]
fn a_name_stands_for_the_same_bytes_and_sequences_go_up() {
    let mut site = Site::new();
    site.add("1.1.0", 5, 0);
    let (one, two) = (semver::Version::new(1, 1, 0), semver::Version::new(1, 2, 0));
    let release = |version, sequence, component| Release {
        plugin: "sample",
        version,
        epoch: 0,
        sequence,
        component,
        statements: b"s",
    };
    let code = |site: &mut Site, release| site.repo.add(&release, day(0)).map_err(|error| error.code());
    assert_eq!(code(&mut site, release(&one, 6, b"other")), Err("E_TUF_REPLACED"));
    assert_eq!(code(&mut site, release(&two, 5, b"other")), Err("E_ROLLBACK"));
    assert_eq!(code(&mut site, release(&two, 6, b"other")), Ok(()));
    let build = semver::Version::parse("1.4.2+a").unwrap();
    assert_eq!(code(&mut site, release(&build, 7, b"other")), Err("E_TUF_NAME"));
}

#[test]
fn the_overview_names_every_role() {
    let site = Site::new();
    let overview = site.repo.overview();
    assert_eq!(overview.iter().map(|entry| entry.role.as_str()).collect::<Vec<_>>(), ROLES_SHOWN);
    assert!(overview.iter().all(|entry| entry.version == Some(1) && entry.threshold > 0 && !entry.keys.is_empty()));
    assert_eq!(ROLES.len(), overview.len());
}

const ROLES_SHOWN: [&str; 6] = ["root", "targets", RELEASES, REVOCATION, "snapshot", "timestamp"];

#[test]
fn a_program_is_staged_by_what_is_signed_of_it() {
    use crate::tuf::repo::GatewayProgram;
    let mut site = Site::new();
    let version = semver::Version::new(0, 2, 0);
    let program = |bytes, percent| GatewayProgram {
        version: &version,
        platform: "linux-amd64",
        bytes,
        channel: "stable",
        percent,
    };
    let name = "viworks-gateway-0.2.0-linux-amd64";
    let seen = |site: &Site| {
        let Ok((trusted, _)) = site.update(State::default(), 0) else { panic!("refused") };
        trusted.target(name).map(|target| (target.role.clone(), target.custom.clone().unwrap_or_default()))
    };
    for percent in [5, 100] {
        site.repo.add_program(&program(b"elf", percent), day(0)).unwrap();
        site.publish(0);
        let (role, custom) = seen(&site).unwrap();
        assert_eq!(
            (role.as_str(), &custom["percent"], &custom["channel"]),
            (RELEASES, &percent.into(), &"stable".into())
        );
    }
    let other = site.repo.add_program(&program(b"other", 100), day(0));
    assert!(matches!(other, Err(Error::Replaced { .. })));

    // A repository of a time before there were programs: nobody spoke for such names.
    let targets = site.repo.edit("targets", day(0)).unwrap();
    for role in targets.delegations.iter_mut().flat_map(|all| &mut all.roles) {
        role.paths.retain(|path| path.starts_with('*') || path == "revocations.json");
    }
    site.publish(0);
    assert_eq!(seen(&site), None);
    site.repo.add_program(&program(b"elf", 100), day(0)).unwrap();
    site.publish(0);
    assert!(seen(&site).is_some(), "the role targets let it speak for them");
}
