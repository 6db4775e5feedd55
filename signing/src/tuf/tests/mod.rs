//! A repository of ours and a client of ours: what is taken, what is remembered, and what
//! is not taken.

mod client;
mod maker;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::repo::{Days, Keys, RELEASES, REVOCATION, Release, Repository};
use super::{Client, State, Step, Trusted, TufError};
use crate::keys::SecretKey;
use crate::signer::Signer;

/// 2030-01-01.
fn day(days: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000 + days * 86_400)
}

/// What came of an update, and what is kept of it either way.
type Outcome = Result<(Trusted, State), Box<(TufError, State)>>;

/// Keys by role, a repository, and its targets.
struct Site {
    keys: BTreeMap<&'static str, Vec<SecretKey>>,
    repo: Repository,
    targets: BTreeMap<String, Vec<u8>>,
}

fn generate(count: usize) -> Vec<SecretKey> {
    (0..count).map(|_| SecretKey::generate()).collect()
}

impl Site {
    /// With the thresholds that the format gives, everything published at day 0.
    fn new() -> Self {
        let counts = [
            ("root", 3, 2),
            ("targets", 3, 2),
            (RELEASES, 2, 2),
            (REVOCATION, 1, 1),
            ("snapshot", 1, 1),
            ("timestamp", 1, 1),
        ];
        let keys: BTreeMap<_, _> = counts.iter().map(|&(role, count, _)| (role, generate(count))).collect();
        let public = |role: &str| keys[role].iter().map(SecretKey::public).collect::<Vec<_>>();
        let plan = counts.iter().map(|&(role, _, threshold)| (role, Keys { keys: public(role), threshold })).collect();
        let repo = Repository::init(&plan, Days::default(), day(0)).unwrap();
        let mut site = Self { keys, repo, targets: BTreeMap::new() };
        site.publish(0);
        site
    }

    fn signers(&self) -> Vec<&dyn Signer> {
        self.keys.values().flatten().map(|key| key as &dyn Signer).collect()
    }

    /// Sign with all keys and publish; nothing may be missing.
    fn publish(&mut self, at: u64) {
        let keys: Vec<&dyn Signer> = self.keys.values().flatten().map(|key| key as &dyn Signer).collect();
        self.repo.sign(&keys).unwrap();
        let published = self.repo.publish(&keys, day(at)).unwrap();
        assert_eq!(published.missing, []);
        self.targets.extend(self.repo.take_written().targets);
    }

    fn add(&mut self, version: &str, sequence: u32, at: u64) {
        let version = semver::Version::parse(version).unwrap();
        let component = format!("component {version}");
        let statements = format!("statements {version}");
        let release = Release {
            plugin: "sample",
            version: &version,
            epoch: 0,
            sequence,
            component: component.as_bytes(),
            statements: statements.as_bytes(),
        };
        self.repo.add(&release, day(at)).unwrap();
        self.publish(at);
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.repo.metadata().get(name).or_else(|| self.targets.get(name)).cloned()
    }

    fn first_root(&self) -> Vec<u8> {
        self.file("1.root.json").unwrap()
    }

    fn update(&self, state: State, at: u64) -> Outcome {
        update(&self.first_root(), state, at, |name| self.file(name))
    }
}

/// One update; whatever comes of it, the state is what a gateway would keep.
fn update(root: &[u8], state: State, at: u64, fetch: impl Fn(&str) -> Option<Vec<u8>>) -> Outcome {
    let mut client = Client::new(root, state.clone(), day(at)).map_err(|error| Box::new((error, state)))?;
    while let Step::Fetch { name, max } = client.next() {
        let bytes = fetch(&name);
        assert!(super::place(&name).is_some(), "{name} has no place");
        assert!(max <= super::MAX_TARGETS);
        if let Err(error) = client.supply(bytes.as_deref()) {
            assert_eq!(client.next(), Step::Done, "a refused update is over");
            assert!(client.trusted().is_none());
            return Err(Box::new((error, reload(client.state()))));
        }
    }
    let state = reload(client.state());
    Ok((client.trusted().unwrap().clone(), state))
}

/// As it comes back from the disk.
fn reload(state: &State) -> State {
    let back = State::decode(&state.encode().unwrap()).unwrap();
    assert_eq!(&back, state);
    back
}

fn code(outcome: &Outcome) -> &'static str {
    outcome.as_ref().map_or_else(|refused| refused.0.code(), |_| "OK")
}
