//! A repository made by the maker of `viworks-sign`, taken by this backend: mirrored,
//! served, published from, revoked by; and what is refused of it.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::SystemTime;
use viworks_protocol::frame::BackendFrame;
use viworks_signing::keys::SecretKey;
use viworks_signing::signer::Signer;
use viworks_signing::tuf::Action;
use viworks_signing::tuf::repo::{self, Days, Keys, RELEASES, REVOCATION};

use super::{Parts, Releases, Repository, RepositoryError, Source};
use crate::catalog::{PublishError, Wanted};
use crate::metrics::Metrics;
use crate::store::model::Standing;
use crate::testing::{World, component, release};

struct Site {
    keys: BTreeMap<&'static str, SecretKey>,
    repo: repo::Repository,
    targets: BTreeMap<String, Vec<u8>>,
}

impl Site {
    fn new() -> Self {
        let roles = ["root", "targets", RELEASES, REVOCATION, "snapshot", "timestamp"];
        let keys: BTreeMap<_, _> = roles.iter().map(|role| (*role, SecretKey::generate())).collect();
        let plan = keys.iter().map(|(role, key)| (*role, Keys { keys: vec![key.public()], threshold: 1 })).collect();
        let repo = repo::Repository::init(&plan, Days::default(), SystemTime::now()).expect("a repository");
        let mut site = Self { keys, repo, targets: BTreeMap::new() };
        site.publish();
        site
    }

    fn publish(&mut self) {
        let keys: Vec<&dyn Signer> = self.keys.values().map(|key| key as &dyn Signer).collect();
        self.repo.sign(&keys).expect("signed");
        let published = self.repo.publish(&keys, SystemTime::now()).expect("published");
        assert_eq!(published.missing, []);
        self.targets.extend(self.repo.take_written().targets);
    }

    fn add(&mut self, sequence: u32, component: &[u8], statements: &str) {
        let version = semver(sequence);
        let release = repo::Release {
            plugin: "probe",
            version: &version,
            epoch: 0,
            sequence,
            component,
            statements: statements.as_bytes(),
        };
        self.repo.add(&release, SystemTime::now()).expect("added");
        self.publish();
    }

    fn source(&self) -> Source {
        let metadata = self.repo.metadata().iter().map(|(name, bytes)| (format!("metadata/{name}"), bytes));
        let targets = self.targets.iter().map(|(name, bytes)| (format!("targets/{name}"), bytes));
        Source::Files(metadata.chain(targets).map(|(name, bytes)| (name, Bytes::from(bytes.clone()))).collect())
    }
}

fn semver(sequence: u32) -> semver::Version {
    format!("1.0.{sequence}").parse().expect("a version")
}

async fn open(world: &World, site: &Site) -> Repository {
    let parts = Parts {
        catalog: world.catalog.clone(),
        rollouts: world.rollouts.clone(),
        store: world.store.clone(),
        clock: world.clock.clone(),
        cluster: world.cluster.clone(),
        metrics: Metrics::default(),
        root: site.repo.metadata()["1.root.json"].clone(),
        directory: None,
        activates: true,
    };
    Repository::open(parts).await.expect("opened")
}

fn bundle(world: &World, sequence: u32) -> (Vec<u8>, String) {
    let bytes = component(&format!("probe {sequence}"));
    let signed = release(&world.key, "probe", sequence, "ping", &bytes);
    (bytes, signed)
}

#[tokio::test]
async fn what_is_new_is_mirrored_served_and_published() {
    let (world, mut site) = (World::new().await, Site::new());
    let repository = open(&world, &site).await;
    assert!(repository.current().news().is_none() && repository.current().frame("timestamp.json").is_none());
    for sequence in [2, 3] {
        let (bytes, signed) = bundle(&world, sequence);
        site.add(sequence, &bytes, &signed);
    }
    let report = repository.update(site.source(), "carol").await.expect("taken");
    assert_eq!(report.published.iter().map(|p| p.sequence).collect::<Vec<_>>(), [3], "the newest alone");
    assert_eq!(world.catalog.active()[0].sequence, 3);

    let current = repository.current();
    let news: BackendFrame = serde_json::from_str(&current.news().expect("news")).expect("a frame");
    let versions = current.trusted.as_ref().expect("trusted").versions().clone();
    assert!(matches!(news, BackendFrame::Repository { timestamp } if timestamp == versions.timestamp));
    for name in ["timestamp.json".to_owned(), "1.root.json".to_owned(), format!("{}.snapshot.json", versions.snapshot)]
    {
        let frame: BackendFrame = serde_json::from_str(&current.frame(&name).expect("served")).expect("a frame");
        let BackendFrame::Metadata { name: named, text: Some(text) } = frame else { panic!("{frame:?}") };
        assert_eq!((named, text.as_bytes()), (name.clone(), site.repo.metadata()[&name].as_slice()));
    }
    assert!(current.frame("../../etc/passwd").is_none() && current.frame(super::STATE).is_none());

    let again = open(&world, &site).await.current();
    assert!(again.news().is_some() && again.frame("timestamp.json").is_some(), "a restart serves what was mirrored");
    let repeated = repository.update(site.source(), "carol").await.expect("taken");
    assert!(repeated.published.is_empty() && repeated.refused.is_empty(), "{repeated:?}");
}

#[tokio::test]
async fn a_repository_that_goes_back_changes_nothing() {
    let (world, mut site) = (World::new().await, Site::new());
    let repository = open(&world, &site).await;
    let old = site.source();
    let (bytes, signed) = bundle(&world, 2);
    site.add(2, &bytes, &signed);
    repository.update(site.source(), "carol").await.expect("taken");
    let refused = repository.update(old, "mallory").await;
    let Err(RepositoryError::Tuf(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code(), "E_TUF_ROLLBACK");
    let current = repository.current();
    assert_eq!(current.fault.as_ref().map(|(code, _)| *code), Some("E_TUF_ROLLBACK"));
    assert!(current.frame("timestamp.json").is_some() && current.news().is_some(), "the good one is served on");
    repository.update(site.source(), "carol").await.expect("taken");
    assert!(repository.current().fault.is_none());
    let other = repository.update(Site::new().source(), "mallory").await;
    assert!(matches!(other, Err(RepositoryError::Tuf(_))), "{other:?}");
}

#[tokio::test]
async fn only_what_the_repository_speaks_for_is_published() {
    let (world, mut site) = (World::new().await, Site::new());
    let repository = Some(open(&world, &site).await);
    let releases =
        Releases { catalog: world.catalog.clone(), repository: repository.clone(), registries: Default::default() };
    let (bytes, signed) = bundle(&world, 2);
    let publish = || releases.publish(bytes.clone().into(), signed.clone(), Wanted::Staged, "carol");
    assert!(matches!(publish().await, Err(PublishError::NoRepository)));
    let Some(repository) = repository else { return };
    repository.update(site.source(), "carol").await.expect("taken");
    let unknown = publish().await;
    assert!(matches!(&unknown, Err(PublishError::Repository(e)) if e.code() == "E_TUF_TARGET"), "{unknown:?}");
    site.add(2, &bytes, &signed);
    // The repository's own way to here is left out, so that the upload brings it.
    let Source::Files(mut files) = site.source() else { return };
    files.retain(|name, _| !name.ends_with(".wasm"));
    repository.update(Source::Files(files), "carol").await.expect("taken");
    assert_eq!(publish().await.expect("published").standing, Standing::Staged);
}

#[tokio::test]
async fn what_is_taken_back_is_killed_and_falls_back() {
    let (world, mut site) = (World::new().await, Site::new());
    let repository = open(&world, &site).await;
    let (bytes, signed) = bundle(&world, 2);
    site.add(2, &bytes, &signed);
    let taken = repository.update(site.source(), "carol").await.expect("taken");
    let digest = taken.published[0].digest.clone();
    let (revoked, now) = (digest.clone(), SystemTime::now());
    site.repo.revoke(|list| list.revoke_digest(revoked, Action::Stop, "it leaks".into()), now).expect("revoked");
    site.publish();
    let report = repository.update(site.source(), "carol").await.expect("taken");
    assert_eq!(report.killed, std::slice::from_ref(&digest));
    let stands = world.store.plugin(&digest).await.expect("read").expect("stored");
    assert!(stands.standing == Standing::Killed && stands.note.contains("it leaks"), "{stands:?}");
    assert_eq!(world.catalog.active()[0].sequence, 1, "what was active before");
}
