//! What a client takes and remembers over days, rotations and refusals.

use super::*;
use crate::tuf::Action;
use proptest::prelude::*;
use std::cell::RefCell;

#[test]
fn a_first_update_vouches_for_targets_and_their_bytes() {
    let mut site = Site::new();
    site.add("1.0.0", 1, 0);
    let (trusted, state) = site.update(State::default(), 0).unwrap();
    let target = trusted.target("sample-1.0.0.wasm").unwrap();
    assert_eq!((target.length, target.role.as_str()), (15, RELEASES));
    assert!(trusted.check("sample-1.0.0.wasm", b"component 1.0.0").is_ok());
    assert!(trusted.check("sample-1.0.0.wasm.intoto.jsonl", b"statements 1.0.0").is_ok());
    for (name, bytes, code) in [
        ("sample-1.0.0.wasm", "component 1.0.1", "E_TUF_MIXED"),
        ("sample-1.0.0.wasm", "component", "E_TUF_MIXED"),
        ("sample-1.0.1.wasm", "component 1.0.1", "E_TUF_TARGET"),
    ] {
        assert_eq!(trusted.check(name, bytes.as_bytes()).map_err(|e| e.code()), Err(code));
    }
    assert_eq!(trusted.versions().roles[RELEASES], 2);
    assert_eq!(trusted.expires().0, "timestamp");
    assert!(trusted.fresh(day(0)).is_ok() && trusted.fresh(day(1)).is_err());
    let offline = state.trusted(&site.first_root()).unwrap();
    assert_eq!((offline.versions(), offline.targets()), (trusted.versions(), trusted.targets()));
}

#[test]
fn without_news_only_the_timestamp_is_fetched() {
    let mut site = Site::new();
    site.add("1.0.0", 1, 0);
    let (_, state) = site.update(State::default(), 0).unwrap();
    let asked = RefCell::new(Vec::new());
    let fetch = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        site.file(name)
    };
    update(&site.first_root(), state, 0, fetch).unwrap();
    assert_eq!(*asked.borrow(), ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_client_that_was_away_for_two_rotations_follows_the_chain() {
    let mut site = Site::new();
    let (_, state) = site.update(State::default(), 0).unwrap();
    for round in 1..=2 {
        let new = SecretKey::generate();
        let gone = site.keys["root"][0].public().id();
        site.repo.rotate("root", &[new.public()], &[gone], None, day(round)).unwrap();
        site.keys.get_mut("root").unwrap().push(new);
        site.publish(round);
        site.keys.get_mut("root").unwrap().remove(0);
    }
    site.publish(2);
    let (trusted, state) = site.update(state, 2).unwrap();
    assert_eq!(trusted.versions().root, 3);
    let (again, _) = site.update(state.clone(), 2).unwrap();
    assert_eq!(again.versions().root, 3);
    let mut old = site;
    old.repo = Repository::open(
        old.repo
            .metadata()
            .iter()
            .filter(|(name, _)| *name != "3.root.json")
            .map(|(n, b)| (n.clone(), b.clone()))
            .collect(),
        &BTreeMap::new(),
        Days::default(),
        |name| old.targets.get(name).cloned(),
    )
    .unwrap();
    assert_eq!(code(&old.update(state, 2)), "OK", "the stored root is as good as a fetched one");
    assert_eq!(code(&old.update(State::default(), 2)), "OK", "and a newcomer is only older");
}

#[test]
fn versions_never_go_back() {
    let mut site = Site::new();
    site.add("1.0.0", 1, 0);
    let before = site.repo.metadata().clone();
    let (_, old) = site.update(State::default(), 0).unwrap();
    site.add("1.1.0", 2, 0);
    let (_, new) = site.update(old, 0).unwrap();
    let back = |name: &str| before.get(name).or_else(|| site.targets.get(name)).cloned();
    let refused = update(&site.first_root(), new, 0, back);
    assert_eq!(code(&refused), "E_TUF_ROLLBACK");
    let kept = refused.unwrap_err().1;
    assert!(kept.trusted(&site.first_root()).unwrap().target("sample-1.1.0.wasm").is_some());
}

#[test]
fn what_is_expired_is_not_taken_and_what_was_taken_stays_readable() {
    let mut site = Site::new();
    site.add("1.0.0", 1, 0);
    let (_, state) = site.update(State::default(), 0).unwrap();
    let late = site.update(state.clone(), 2);
    assert!(
        matches!(&late, Err(refused) if matches!(&refused.0, TufError::Expired { role, .. } if role == "timestamp"))
    );
    let kept = late.unwrap_err().1.trusted(&site.first_root()).unwrap();
    assert!(kept.target("sample-1.0.0.wasm").is_some());
    assert_eq!(kept.fresh(day(2)).map_err(|e| e.code()), Err("E_TUF_EXPIRED"));
    site.publish(2);
    assert_eq!(code(&site.update(state, 2)), "OK");
    let keys = site.signers();
    let late = site.repo.clone().publish(&keys, day(400)).unwrap_err();
    assert_eq!(late.code(), "E_TUF_EXPIRED", "a maker does not publish what nobody would take");
}

#[test]
fn a_clock_that_was_set_back_gains_nothing_and_one_set_ahead_little() {
    let mut site = Site::new();
    let (_, state) = site.update(State::default(), 0).unwrap();
    site.publish(20);
    let (_, state) = site.update(state, 20).unwrap();
    let build = day(0);
    assert_eq!(state.time(day(0) - Duration::from_secs(86_400 * 3650), build), day(20));
    let ahead = site.update(state.clone(), 3650);
    assert_eq!(code(&ahead), "E_TUF_EXPIRED");
    assert_eq!(ahead.unwrap_err().1.time(day(0), build), day(20), "what was refused proves no time");
    // Day 0 by its clock, and yet day 20's metadata is judged by day 20.
    site.publish(20);
    assert_eq!(code(&site.update(state, 0)), "OK");
}

#[test]
fn a_version_that_was_driven_up_is_forgotten_with_its_key() {
    let mut site = Site::new();
    let (_, state) = site.update(State::default(), 0).unwrap();
    // Somebody with the online keys publishes the highest version there is.
    let mut driven = state;
    let high = (1 << 53) - 1;
    for seen in driven.known.timestamp.iter_mut().map(|(seen, _)| seen) {
        seen.version = high;
    }
    driven.timestamp = None;
    assert_eq!(code(&site.update(driven.clone(), 0)), "E_TUF_ROLLBACK");
    let new = SecretKey::generate();
    let gone = site.keys["timestamp"][0].public().id();
    site.repo.rotate("timestamp", &[new.public()], &[gone], None, day(0)).unwrap();
    site.keys.insert("timestamp", vec![new]);
    site.publish(0);
    assert_eq!(code(&site.update(driven, 0)), "OK");
}

#[test]
fn revocations_only_grow_and_outlive_everything_else() {
    let mut site = Site::new();
    let digest = "a".repeat(64);
    site.repo.revoke(|r| r.revoke_digest(digest.clone(), Action::Drain, "bad".into()), day(0)).unwrap();
    site.publish(0);
    let (trusted, state) = site.update(State::default(), 0).unwrap();
    assert_eq!(trusted.revocations().refuses("p", 9, 9, &digest).map(|r| r.code()), Some("E_REVOKED_DIGEST"));
    assert!(site.repo.revoke(|r| *r = Default::default(), day(0)).is_err());

    // The revocation role's own key signs a list that says less.
    let mut less = Site::new();
    std::mem::swap(&mut less.keys, &mut site.keys);
    let mut bare = Repository::open(less.repo.metadata().clone(), &BTreeMap::new(), Days::default(), |n| {
        less.targets.get(n).cloned()
    })
    .unwrap();
    bare.revoke(|_| {}, day(0)).unwrap();
    std::mem::swap(&mut less.keys, &mut site.keys);
    let mut emptied = state.clone();
    emptied.revocations.revoke_key("b".repeat(64));
    assert_eq!(code(&site.update(emptied, 0)), "E_TUF_REVOCATIONS");
    site.repo.revoke(|r| r.raise_floor("p".into(), 1, 5), day(0)).unwrap();
    site.publish(0);
    let (trusted, _) = site.update(state, 0).unwrap();
    let refuses = |epoch, sequence| trusted.revocations().refuses("p", epoch, sequence, "").map(|r| r.code());
    assert_eq!(
        (refuses(1, 5), refuses(0, 9), refuses(1, 6), refuses(2, 0)),
        (Some("E_REVOKED_SEQUENCE"), Some("E_REVOKED_SEQUENCE"), None, None)
    );
    assert!(trusted.revocations().digest(&digest).is_some());
}

#[test]
fn alert_refuses_nothing_and_the_stricter_action_wins() {
    let digest = "c".repeat(64);
    let mut list = super::super::Revocations::default();
    list.revoke_digest(digest.clone(), Action::Alert, "look".into());
    assert_eq!(list.refuses("p", 0, 1, &digest), None);
    let weaker = list.clone();
    list.revoke_digest(digest.clone(), Action::Stop, "bad".into());
    list.revoke_digest(digest.clone(), Action::Alert, "fine".into());
    assert_eq!(list.digest(&digest).map(|d| (d.action, d.reason)), Some((Action::Stop, "bad".into())));
    assert!(list.covers(&weaker) && !weaker.covers(&list));
}

#[test]
fn each_file_is_bounded_and_named_by_the_one_before_it() {
    let site = Site::new();
    let with = |changed: &str, bytes: Option<Vec<u8>>| {
        update(&site.first_root(), State::default(), 0, |name| {
            if name.ends_with(changed) { bytes.clone() } else { site.file(name) }
        })
    };
    for name in
        ["timestamp.json", "snapshot.json", ".targets.json", "releases.json", "revocation.json", "revocations.json"]
    {
        assert_eq!(code(&with(name, None)), "E_TUF_MISSING", "{name}");
        let real = site.repo.metadata().keys().find(|n| n.ends_with(name)).cloned();
        let real = site.file(&real.unwrap_or_else(|| site.repo.revocations_name().unwrap())).unwrap();
        let mut longer = real.clone();
        longer.push(b' ');
        let wanted = if name == "timestamp.json" { "OK" } else { "E_TUF_SIZE" };
        assert_eq!(code(&with(name, Some(longer))), wanted, "{name}, a space longer");
        assert_eq!(code(&with(name, Some(vec![b' '; 2 << 20]))), "E_TUF_SIZE", "{name}, endless");
        let mut shorter = real;
        shorter.pop();
        assert_eq!(code(&with(name, Some(shorter))), wanted.replace("E_TUF_SIZE", "E_TUF_MIXED"), "{name}, shorter");
    }
    assert_eq!(code(&with("2.root.json", Some(site.first_root()))), "E_TUF_ROOT");
    assert_eq!(code(&with("2.root.json", Some(b"{}".to_vec()))), "E_TUF_FORMAT");
}

#[test]
fn supplying_what_nobody_asked_for_is_an_error() {
    let site = Site::new();
    let mut client = Client::new(&site.first_root(), State::default(), day(0)).unwrap();
    while let Step::Fetch { name, .. } = client.next() {
        client.supply(site.file(&name).as_deref()).unwrap();
    }
    assert!(matches!(client.supply(None), Err(TufError::Order)));
    assert!(matches!(State::default().trusted(&site.first_root()), Err(TufError::Missing { .. })));
    assert_eq!(State::decode(b"{\"roots\":[]}").map_err(|e| e.code()), Err("E_TUF_STATE"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_byte_of_any_file_can_change(which in 0usize..6, at in 0usize..4000, bit in 0u8..8) {
        let site = SITE.with(std::rc::Rc::clone);
        let names = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.releases.json", "1.revocation.json"];
        let name = names.get(which).map_or_else(|| site.repo.revocations_name().unwrap(), |n| (*n).to_owned());
        let outcome = update(&site.first_root(), State::default(), 0, |asked| {
            let mut bytes = site.file(asked)?;
            if asked == name {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            Some(bytes)
        });
        // The timestamp has no digest above it: a blank that becomes another blank says the same.
        let same = which == 0 && outcome.is_ok();
        if same {
            let (trusted, _) = outcome.unwrap();
            prop_assert_eq!(trusted.versions().timestamp, 1);
        } else {
            prop_assert!(outcome.is_err());
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_but_never_trusted(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let site = SITE.with(std::rc::Rc::clone);
        prop_assert!(Client::new(&bytes, State::default(), day(0)).is_err());
        let outcome = update(&site.first_root(), State::default(), 0, |name| {
            if name == "timestamp.json" { Some(bytes.clone()) } else { site.file(name) }
        });
        prop_assert!(outcome.is_err());
        let _ = State::decode(&bytes);
        let _ = super::super::Revocations::read(&bytes);
    }
}

thread_local! {
    static SITE: std::rc::Rc<Site> = std::rc::Rc::new(Site::new());
}
