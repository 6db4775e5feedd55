//! A release repository of the tests, made and signed in memory: one key a role.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::signer::Signer;
use viworks_signing::tuf::Revocations;
use viworks_signing::tuf::repo::{Days, Keys, ROLES, Release, Repository};

pub struct Made {
    repo: Repository,
    keys: Vec<SecretKey>,
    lists: BTreeMap<String, Vec<u8>>,
}

impl Made {
    /// Version 1 of everything.
    pub fn new() -> Self {
        let keys: Vec<SecretKey> = ROLES.iter().map(|_| SecretKey::generate()).collect();
        let of = |key: &SecretKey| Keys { keys: vec![key.public()], threshold: 1 };
        let roles: BTreeMap<&str, Keys> = ROLES.into_iter().zip(&keys).map(|(role, key)| (role, of(key))).collect();
        let repo = Repository::init(&roles, Days::default(), SystemTime::now()).unwrap();
        let mut made = Self { repo, keys, lists: BTreeMap::new() };
        made.publish();
        made
    }

    /// What the host's owner is given.
    pub fn root(&self) -> Vec<u8> {
        self.file("1.root.json").unwrap()
    }

    pub fn add(&mut self, manifest: &str, component: &[u8], statements: &str) {
        let manifest = Manifest::parse(manifest).unwrap();
        let release = Release {
            plugin: &manifest.id,
            version: &manifest.version,
            epoch: manifest.epoch,
            sequence: manifest.sequence,
            component,
            statements: statements.as_bytes(),
        };
        self.repo.add(&release, SystemTime::now()).unwrap();
        self.publish();
    }

    pub fn revoke(&mut self, change: impl FnOnce(&mut Revocations)) {
        self.repo.revoke(change, SystemTime::now()).unwrap();
        self.publish();
    }

    /// A new timestamp, and whatever was changed.
    pub fn publish(&mut self) {
        self.publish_at(SystemTime::now());
    }

    /// As it would have been so long ago.
    pub fn publish_before(&mut self, age: Duration) {
        self.publish_at(SystemTime::now() - age);
    }

    fn publish_at(&mut self, now: SystemTime) {
        let keys: Vec<&dyn Signer> = self.keys.iter().map(|key| key as &dyn Signer).collect();
        self.repo.sign(&keys).unwrap();
        let published = self.repo.publish(&keys, now).unwrap();
        assert!(published.missing.is_empty(), "{published:?}");
        self.lists.extend(self.repo.take_written().targets);
    }

    /// What a client asks for.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.repo.metadata().get(name).or_else(|| self.lists.get(name)).cloned()
    }

    pub fn timestamp(&self) -> u64 {
        let bytes = self.file("timestamp.json").unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["signed"]["version"].as_u64().unwrap()
    }

    /// Everything that it serves now, to be served again later.
    pub fn copy(&self) -> BTreeMap<String, Vec<u8>> {
        self.repo.metadata().clone().into_iter().chain(self.lists.clone()).collect()
    }
}
