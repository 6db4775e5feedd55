//! Attacks on a release repository by a mirror, by somebody between, and by thieves of some
//! of its keys.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use viworks_signing::keys::SecretKey;
use viworks_signing::signer::Signer;
use viworks_signing::tuf::repo::{Days, Keys, RELEASES, REVOCATION, Release, Repository};
use viworks_signing::tuf::role::{Key, key_id};
use viworks_signing::tuf::{Action, Client, State, Step, Trusted, TufError, canonical};

use super::release::add_l;
use super::{ACCEPTED, Answer, Row, control};

type Tried<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DAY: Duration = Duration::from_secs(86_400);

pub(super) const ROWS: &[Row] = &[
    Row::new("metadata-rollback", "E_TUF_ROLLBACK", metadata_rollback),
    Row::new("targets-dropped", "E_TUF_ROLLBACK", || {
        after_edit("snapshot", |s| drop(remove(s, "meta", "releases.json")))
    }),
    Row::new("role-version-rollback", "E_TUF_ROLLBACK", || {
        after_edit("snapshot", |s| s["meta"]["releases.json"]["version"] = json!(1))
    }),
    Row::new("freeze", "E_TUF_EXPIRED", freeze),
    Row::new("clock-set-back-ten-years", "E_TUF_EXPIRED", clock_set_back),
    Row::new("clock-set-ahead-ten-years", "E_TUF_EXPIRED", clock_set_ahead),
    Row::new("endless-metadata", "E_TUF_SIZE", || served("timestamp.json", |bytes| bytes.resize(1 << 24, b' '))),
    Row::new("metadata-a-byte-too-long", "E_TUF_SIZE", || served("releases.json", |bytes| bytes.push(b' '))),
    Row::new("thirty-three-signatures", "E_TUF_SIGNATURES", || served("timestamp.json", |bytes| many(bytes, 33))),
    Row::new("hundred-thousand-metadata-signatures", "E_TUF_SIZE", || {
        served("timestamp.json", |bytes| many(bytes, 100_000))
    }),
    Row::new("deep-metadata", "E_TUF_FORMAT", || {
        served("timestamp.json", |b| {
            b.splice(1..1, format!("\"x\":{},", "[".repeat(9_000)).into_bytes()).for_each(drop)
        })
    }),
    Row::new("duplicate-key-in-metadata", "E_TUF_FORMAT", || {
        edited("timestamp", |_| (), |t| t.replacen("\"version\":", "\"version\": 9, \"version\":", 1))
    }),
    Row::new("float-in-metadata", "E_TUF_FORMAT", || {
        served("timestamp.json", |b| replace(b, "\"version\": 3", "\"version\": 3.0"))
    }),
    Row::new("byte-order-mark-in-metadata", "E_TUF_FORMAT", || {
        served("timestamp.json", |b| b.splice(0..0, *b"\xef\xbb\xbf").for_each(drop))
    }),
    Row::new("snapshot-with-older-targets", "E_TUF_MIXED", mixed),
    Row::new("snapshot-that-the-timestamp-does-not-name", "E_TUF_MIXED", || {
        served("snapshot.json", |b| replace(b, "\"version\": 3", "\"version\": 4"))
    }),
    Row::new("metadata-below-its-threshold", "E_TUF_THRESHOLD", || resigned(RELEASES, |keys| vec![&keys[RELEASES][0]])),
    Row::new("metadata-by-the-wrong-role", "E_TUF_THRESHOLD", || {
        resigned(RELEASES, |keys| vec![&keys["snapshot"][0], &keys["timestamp"][0]])
    }),
    Row::new("metadata-by-an-unknown-key", "E_TUF_THRESHOLD", || resigned("timestamp", |_| Vec::new())),
    Row::new("one-key-under-two-ids", "E_TUF_THRESHOLD", stuffed),
    Row::new("malleable-metadata-signature", "E_TUF_THRESHOLD", malleable),
    Row::new("weak-key-in-metadata", "E_TUF_KEY", weak_key),
    Row::new("one-key-for-two-roles", "E_TUF_KEY_ROLES", two_roles),
    Row::new("fast-forward-by-a-stolen-key", "E_TUF_THRESHOLD", fast_forward),
    Row::new("root-version-skipped", "E_TUF_ROOT", || root(|s| s["version"] = json!(3), |_| true)),
    Row::new("root-signed-by-the-old-keys-alone", "E_TUF_ROOT", || root(|_| (), |old| old)),
    Row::new("root-signed-by-the-new-keys-alone", "E_TUF_ROOT", || root(|_| (), |old| !old)),
    Row::new("same-version-with-a-new-digest", "E_TUF_REPLACED", || {
        after_edit(RELEASES, |s| s["targets"]["echo-1.0.0.wasm"]["hashes"]["sha256"] = json!("0".repeat(64)))
    }),
    Row::new("homoglyph-in-a-target", "E_TUF_FORMAT", || renamed("еcho-1.0.0.wasm")),
    Row::new("upper-case-in-a-target", "E_TUF_NAME", || renamed("Echo-1.0.0.wasm")),
    Row::new("path-in-a-target", "E_TUF_NAME", || renamed("../echo-1.0.0.wasm")),
    Row::new("nul-in-a-target", "E_TUF_FORMAT", || renamed("echo\0-1.0.0.wasm")),
    Row::new("build-metadata-in-a-target", "E_TUF_NAME", || renamed("echo-1.4.2+b.wasm")),
    Row::new("delegation-by-a-delegated-role", "E_TUF_DELEGATION", deeper),
    Row::new("revocations-emptied", "E_TUF_REVOCATIONS", emptied),
    Row::new("revocations-gone", "E_TUF_REVOCATIONS", || after_edit(REVOCATION, |s| s["targets"] = json!({}))),
    Row::new("target-of-a-role-that-may-not", "E_TUF_TARGET", foreign_target),
    Row::new("target-with-other-bytes", "E_TUF_MIXED", other_bytes),
    Row::new("revoked-digest", "E_REVOKED_DIGEST", || {
        revoked(|r, digest| r.revoke_digest(digest, Action::Drain, "bad".to_owned()))
    }),
    Row::new("revoked-sequence", "E_REVOKED_SEQUENCE", || revoked(|r, _| r.raise_floor("echo".to_owned(), 0, 1))),
];

type Secrets = BTreeMap<&'static str, Vec<SecretKey>>;

/// A repository with one release, at timestamp 3, and all its keys.
pub(crate) struct Site {
    keys: Secrets,
    repo: Repository,
    targets: BTreeMap<String, Vec<u8>>,
    now: SystemTime,
}

impl Site {
    pub(crate) fn new() -> Tried<Self> {
        let mut site = Self::empty()?;
        site.repo.revoke(|list| list.revoke_key("c".repeat(64)), site.now)?;
        site.publish()?;
        site.add("1.0.0", 1)?;
        Ok(site)
    }

    /// Without a release.
    pub(crate) fn empty() -> Tried<Self> {
        let counts = [
            ("root", 2, 2),
            ("targets", 2, 2),
            (RELEASES, 2, 2),
            (REVOCATION, 1, 1),
            ("snapshot", 1, 1),
            ("timestamp", 1, 1),
        ];
        let generate = |count| (0..count).map(|_| SecretKey::generate()).collect::<Vec<_>>();
        let keys: Secrets = counts.iter().map(|&(role, count, _)| (role, generate(count))).collect();
        let of = |role: &str, threshold| Keys { keys: keys[role].iter().map(SecretKey::public).collect(), threshold };
        let plan = counts.iter().map(|&(role, _, threshold)| (role, of(role, threshold))).collect();
        let now = SystemTime::now();
        let repo = Repository::init(&plan, Days::default(), now)?;
        let mut site = Self { keys, repo, targets: BTreeMap::new(), now };
        site.publish()?;
        Ok(site)
    }

    fn add(&mut self, version: &str, sequence: u32) -> Tried<()> {
        let version = version.parse()?;
        let release = Release {
            plugin: "echo",
            version: &version,
            epoch: 0,
            sequence,
            component: b"component",
            statements: b"statements",
        };
        self.repo.add(&release, self.now)?;
        self.publish()
    }

    /// What was signed and built in earnest.
    pub(crate) fn release(&mut self, release: &Release<'_>) -> Tried<()> {
        self.repo.add(release, self.now)?;
        self.publish()
    }

    pub(crate) fn revoke(&mut self, change: impl FnOnce(&mut viworks_signing::tuf::Revocations)) -> Tried<()> {
        self.repo.revoke(change, self.now)?;
        self.publish()
    }

    fn publish(&mut self) -> Tried<()> {
        let keys: Vec<&dyn Signer> = self.keys.values().flatten().map(|key| key as &dyn Signer).collect();
        self.repo.sign(&keys)?;
        let published = self.repo.publish(&keys, self.now)?;
        self.targets.extend(self.repo.take_written().targets);
        if published.missing.is_empty() { Ok(()) } else { Err(format!("{published:?}").into()) }
    }

    /// Everything as a mirror serves it.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.repo.metadata().clone().into_iter().chain(self.targets.clone()).collect()
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.repo.metadata().get("1.root.json").cloned().unwrap_or_default()
    }

    fn update(
        &self,
        files: &BTreeMap<String, Vec<u8>>,
        state: State,
        now: SystemTime,
    ) -> Result<(Trusted, State), TufError> {
        update(&self.root(), files, state, now)
    }

    /// Accepted as it is.
    pub(crate) fn controlled() -> Tried<(Self, State)> {
        let site = Self::new()?;
        let taken = site.update(&site.files(), State::default(), site.now);
        control(&taken)?;
        Ok((site, taken?.1))
    }

    fn answer(&self, files: &BTreeMap<String, Vec<u8>>, state: State) -> Answer {
        answer(self.update(files, state, self.now).map(drop))
    }

    /// A thief of `role`'s keys, and of those of snapshot and timestamp, changes its file.
    fn edit(&self, role: &'static str, change: impl FnOnce(&mut Value)) -> Tried<BTreeMap<String, Vec<u8>>> {
        self.edit_text(role, change, str::to_owned)
    }

    fn edit_text(
        &self,
        role: &'static str,
        change: impl FnOnce(&mut Value),
        spell: impl Fn(&str) -> String,
    ) -> Tried<BTreeMap<String, Vec<u8>>> {
        let mut files = self.files();
        let mut change = Some(change);
        let mut apply = |name: &'static str, signed: &mut Value| {
            if name == role
                && let Some(change) = change.take()
            {
                change(signed);
            }
        };
        let mut timestamp: Value = serde_json::from_slice(&files["timestamp.json"])?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let old = number(&timestamp["signed"]["meta"]["snapshot.json"]["version"]);
        let mut snapshot: Value = serde_json::from_slice(&files[&format!("{old}.snapshot.json")])?;
        for name in ["targets", RELEASES, REVOCATION] {
            let version = number(&snapshot["signed"]["meta"][format!("{name}.json")]["version"]);
            let mut file: Value = serde_json::from_slice(&files[&format!("{version}.{name}.json")])?;
            if name != role {
                continue;
            }
            apply(name, &mut file["signed"]);
            file["signed"]["version"] = json!(version + 1);
            let bytes = spell(&sign(&file["signed"], &self.keys[name])?).into_bytes();
            snapshot["signed"]["meta"][format!("{name}.json")] = meta(version + 1, &bytes);
            files.insert(format!("{}.{name}.json", version + 1), bytes);
        }
        snapshot["signed"]["version"] = json!(old + 1);
        apply("snapshot", &mut snapshot["signed"]);
        let mut bytes = sign(&snapshot["signed"], &self.keys["snapshot"])?;
        if role == "snapshot" {
            bytes = spell(&bytes);
        }
        files.insert(format!("{}.snapshot.json", old + 1), bytes.clone().into_bytes());
        let version = number(&timestamp["signed"]["version"]);
        timestamp["signed"]["version"] = json!(version + 1);
        timestamp["signed"]["meta"]["snapshot.json"] = meta(old + 1, bytes.as_bytes());
        apply("timestamp", &mut timestamp["signed"]);
        let mut bytes = sign(&timestamp["signed"], &self.keys["timestamp"])?;
        if role == "timestamp" {
            bytes = spell(&bytes);
        }
        files.insert("timestamp.json".to_owned(), bytes.into_bytes());
        Ok(files)
    }
}

pub(crate) fn update(
    root: &[u8],
    files: &BTreeMap<String, Vec<u8>>,
    state: State,
    now: SystemTime,
) -> Result<(Trusted, State), TufError> {
    let mut client = Client::new(root, state, now)?;
    while let Step::Fetch { name, .. } = client.next() {
        client.supply(files.get(&name).map(Vec::as_slice))?;
    }
    Ok((client.trusted().cloned().ok_or(TufError::Order)?, client.state().clone()))
}

fn answer(outcome: Result<(), TufError>) -> Answer {
    Ok(outcome.map_or_else(|error| error.code().to_owned(), |()| ACCEPTED.to_owned()))
}

fn sign(signed: &Value, keys: &[SecretKey]) -> Tried<String> {
    let keys: Vec<&SecretKey> = keys.iter().collect();
    sign_by(signed, &keys)
}

fn sign_by(signed: &Value, keys: &[&SecretKey]) -> Tried<String> {
    // What has no canonical form is signed as it is written: a thief does not mind.
    let message = canonical::encode(signed).unwrap_or_else(|_| signed.to_string().into_bytes());
    let signature = |key: &&SecretKey| json!({"keyid": key_id(&key.public()), "sig": hex::encode(key.sign(&message))});
    let signatures: Vec<Value> = keys.iter().map(signature).collect();
    Ok(serde_json::to_string(&json!({"signatures": signatures, "signed": signed}))?)
}

fn meta(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": hex::encode(Sha256::digest(bytes))}})
}

fn remove(value: &mut Value, field: &str, key: &str) -> Option<Value> {
    value[field].as_object_mut()?.remove(key)
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    *bytes = String::from_utf8_lossy(bytes).replacen(from, to, 1).into_bytes();
}

fn many(bytes: &mut Vec<u8>, count: usize) {
    if let Ok(mut file) = serde_json::from_slice::<Value>(bytes) {
        let signature = file["signatures"][0].clone();
        file["signatures"] = Value::Array(vec![signature; count]);
        *bytes = file.to_string().into_bytes();
    }
}

/// Somebody without any key serves another file; its name ends with `name`, the newest counts.
fn served(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Answer {
    let (site, _) = Site::controlled()?;
    let mut files = site.files();
    let newest = files.keys().filter(|file| file.ends_with(name)).max().cloned().ok_or("no such file")?;
    let bytes = files.get_mut(&newest).ok_or("no such file")?;
    let before = bytes.clone();
    change(bytes);
    if *bytes == before {
        return Err("the file did not change".into());
    }
    site.answer(&files, State::default())
}

/// A thief of the role's keys changes its file, for a client that knew it before.
fn after_edit(role: &'static str, change: impl Fn(&mut Value)) -> Answer {
    let (site, state) = Site::controlled()?;
    control(&site.update(&site.edit(role, |_| ())?, state.clone(), site.now))?;
    site.answer(&site.edit(role, change)?, state)
}

fn edited(role: &'static str, change: impl Fn(&mut Value), spell: impl Fn(&str) -> String) -> Answer {
    let (site, state) = Site::controlled()?;
    control(&site.update(&site.edit(role, |_| ())?, state.clone(), site.now))?;
    site.answer(&site.edit_text(role, change, spell)?, state)
}

/// The role's file signed by others.
fn resigned(role: &'static str, keys: impl Fn(&Secrets) -> Vec<&SecretKey>) -> Answer {
    let (site, state) = Site::controlled()?;
    let spell = |text: &str| {
        let file: Value = serde_json::from_str(text).unwrap_or_default();
        sign_by(&file["signed"], &keys(&site.keys)).unwrap_or_default()
    };
    site.answer(&site.edit_text(role, |_| (), spell)?, state)
}

fn metadata_rollback() -> Answer {
    let (mut site, _) = Site::controlled()?;
    let before = site.files();
    site.add("1.1.0", 2)?;
    let (_, state) = site.update(&site.files(), State::default(), site.now)?;
    site.answer(&before, state)
}

fn freeze() -> Answer {
    let (site, state) = Site::controlled()?;
    answer(site.update(&site.files(), state, site.now + 2 * DAY).map(drop))
}

/// Old metadata, and a clock of that time; the client was further on already.
fn clock_set_back() -> Answer {
    let (mut site, _) = Site::controlled()?;
    let old = site.files();
    site.now += 5 * DAY;
    site.publish()?;
    let (_, state) = site.update(&site.files(), State::default(), site.now)?;
    let time = state.time(site.now - 3650 * DAY, SystemTime::UNIX_EPOCH);
    // A newcomer whose memory of versions was lost, but not its floor.
    let mut files = site.files();
    files.insert("timestamp.json".to_owned(), old["timestamp.json"].clone());
    control(&update(&site.root(), &old, State::default(), site.now - 5 * DAY))?;
    answer(update(&site.root(), &old, State::default(), time).map(drop))
}

fn clock_set_ahead() -> Answer {
    let (site, state) = Site::controlled()?;
    let ahead = site.update(&site.files(), state.clone(), site.now + 3650 * DAY);
    // And when the clock is right again, nothing is locked.
    control(&site.update(&site.files(), state, site.now))?;
    answer(ahead.map(drop))
}

/// The mirror gives the release list of before as that of the new snapshot.
fn mixed() -> Answer {
    let (mut site, state) = Site::controlled()?;
    site.add("1.1.0", 2)?;
    let mut files = site.files();
    control(&site.update(&files, state.clone(), site.now))?;
    let old = files["2.releases.json"].clone();
    files.insert("3.releases.json".to_owned(), old);
    site.answer(&files, state)
}

fn stuffed() -> Answer {
    let (site, _) = Site::controlled()?;
    let key = &site.keys[RELEASES][0];
    let files = site.edit("targets", |signed| {
        let delegations = &mut signed["delegations"];
        delegations["keys"]["ab"] = json!(Key::of(&key.public()));
        if let Some(role) = delegations["roles"].as_array_mut().and_then(|roles| roles.first_mut()) {
            role["keyids"] = json!(["ab", key_id(&key.public())]);
        }
    })?;
    let mut files = files;
    // The release list by that one key, twice; its digest in snapshot and timestamp.
    let file: Value = serde_json::from_slice(&files["2.releases.json"])?;
    let message = canonical::encode(&file["signed"])?;
    let sig = hex::encode(key.sign(&message));
    let signatures = json!([{"keyid": "ab", "sig": sig}, {"keyid": key_id(&key.public()), "sig": sig}]);
    let bytes = json!({"signatures": signatures, "signed": file["signed"]}).to_string().into_bytes();
    rehash(&site, &mut files, "2.releases.json", "releases.json", 2, bytes)?;
    site.answer(&files, State::default())
}

/// Put `bytes` under `name`, and its digest into the newest snapshot and its timestamp.
fn rehash(
    site: &Site,
    files: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    entry: &str,
    version: u64,
    bytes: Vec<u8>,
) -> Tried<()> {
    let mut timestamp: Value = serde_json::from_slice(&files["timestamp.json"])?;
    let number = timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap_or_default();
    let snapshot_name = format!("{number}.snapshot.json");
    let mut snapshot: Value = serde_json::from_slice(&files[&snapshot_name])?;
    snapshot["signed"]["meta"][entry] = meta(version, &bytes);
    let text = sign(&snapshot["signed"], &site.keys["snapshot"])?;
    timestamp["signed"]["meta"]["snapshot.json"] = meta(number, text.as_bytes());
    files.insert("timestamp.json".to_owned(), sign(&timestamp["signed"], &site.keys["timestamp"])?.into_bytes());
    files.insert(snapshot_name, text.into_bytes());
    files.insert(name.to_owned(), bytes);
    Ok(())
}

fn malleable() -> Answer {
    let (site, state) = Site::controlled()?;
    let mut files = site.files();
    let mut file: Value = serde_json::from_slice(&files["timestamp.json"])?;
    let mut sig = hex::decode(file["signatures"][0]["sig"].as_str().unwrap_or_default())?;
    add_l(&mut sig);
    file["signatures"][0]["sig"] = json!(hex::encode(sig));
    files.insert("timestamp.json".to_owned(), file.to_string().into_bytes());
    site.answer(&files, state)
}

/// A root of the right keys; one is exchanged for a point of small order.
fn weak_key() -> Answer {
    let mut identity = [0u8; 32];
    identity[0] = 1;
    changed_root(|signed| {
        let id = signed["roles"]["timestamp"]["keyids"][0].as_str().unwrap_or_default().to_owned();
        signed["keys"][id]["keyval"]["public"] = json!(hex::encode(identity));
    })
}

fn two_roles() -> Answer {
    changed_root(|signed| signed["roles"]["timestamp"] = signed["roles"]["snapshot"].clone())
}

fn changed_root(change: impl FnOnce(&mut Value)) -> Answer {
    let (site, state) = Site::controlled()?;
    let mut files = site.files();
    let mut file: Value = serde_json::from_slice(&site.root())?;
    file["signed"]["version"] = json!(2);
    files.insert("2.root.json".to_owned(), sign(&file["signed"], &site.keys["root"])?.into_bytes());
    control(&site.update(&files, state.clone(), site.now))?;
    change(&mut file["signed"]);
    files.insert("2.root.json".to_owned(), sign(&file["signed"], &site.keys["root"])?.into_bytes());
    site.answer(&files, state)
}

/// Other root keys in version 2: changed, and signed by the old, the new or both.
fn root(change: impl FnOnce(&mut Value), by: impl Fn(bool) -> bool) -> Answer {
    let (site, state) = Site::controlled()?;
    let mut files = site.files();
    let new = [SecretKey::generate(), SecretKey::generate()];
    let mut file: Value = serde_json::from_slice(&site.root())?;
    let signed = &mut file["signed"];
    signed["version"] = json!(2);
    for key in &new {
        signed["keys"][key_id(&key.public())] = json!(Key::of(&key.public()));
    }
    signed["roles"]["root"]["keyids"] = json!([key_id(&new[0].public()), key_id(&new[1].public())]);
    let old: Vec<&SecretKey> = site.keys["root"].iter().collect();
    let both: Vec<&SecretKey> = old.iter().copied().chain(&new).collect();
    files.insert("2.root.json".to_owned(), sign_by(signed, &both)?.into_bytes());
    control(&site.update(&files, state.clone(), site.now))?;
    change(signed);
    let keys: Vec<&SecretKey> =
        both.iter().copied().filter(|key| by(old.iter().any(|o| o.public() == key.public()))).collect();
    files.insert("2.root.json".to_owned(), sign_by(signed, &keys)?.into_bytes());
    site.answer(&files, state)
}

/// The stolen timestamp key drives the version up; the owners take the key away and go on
/// from where they were, and the thief tries again.
fn fast_forward() -> Answer {
    let (mut site, state) = Site::controlled()?;
    let driven = site.edit("timestamp", |signed| signed["version"] = json!(1_u64 << 52))?;
    let (_, state) = site.update(&driven, state, site.now)?;
    let new = SecretKey::generate();
    let stolen = site.keys["timestamp"][0].public().id();
    site.repo.rotate("timestamp", &[new.public()], &[stolen], None, site.now)?;
    site.keys.insert("timestamp", vec![new]);
    site.publish()?;
    let recovered = site.update(&site.files(), state, site.now);
    control(&recovered)?;
    let mut files = site.files();
    files.insert("timestamp.json".to_owned(), driven["timestamp.json"].clone());
    site.answer(&files, recovered?.1)
}

fn renamed(name: &'static str) -> Answer {
    after_edit(RELEASES, |signed| {
        let target = signed["targets"]["echo-1.0.0.wasm"].clone();
        signed["targets"][name] = target;
    })
}

fn deeper() -> Answer {
    let (site, state) = Site::controlled()?;
    let key = SecretKey::generate().public();
    let files = site.edit(RELEASES, |signed| {
        let role =
            json!({"name": "mine", "terminating": true, "paths": ["*"], "keyids": [key_id(&key)], "threshold": 1});
        signed["delegations"] = json!({"keys": {key_id(&key): Key::of(&key)}, "roles": [role]});
    })?;
    site.answer(&files, state)
}

fn emptied() -> Answer {
    let (site, state) = Site::controlled()?;
    let list = br#"{"keys":[],"digests":[],"floors":[]}"#;
    let sha256 = hex::encode(Sha256::digest(list));
    let mut files = site.edit(REVOCATION, |signed| {
        signed["targets"]["revocations.json"] = json!({"length": list.len(), "hashes": {"sha256": sha256}});
    })?;
    files.insert(format!("{sha256}.revocations.json"), list.to_vec());
    // To a newcomer it is a list like any other.
    control(&site.update(&files, State::default(), site.now))?;
    site.answer(&files, state)
}

/// The revocation role lists a component of its own.
fn foreign_target() -> Answer {
    let (site, state) = Site::controlled()?;
    let files = site.edit(REVOCATION, |signed| {
        signed["targets"]["evil-1.0.0.wasm"] =
            json!({"length": 4, "hashes": {"sha256": hex::encode(Sha256::digest(b"evil"))}});
    })?;
    let (trusted, _) = site.update(&files, state, site.now)?;
    control(&trusted.check("echo-1.0.0.wasm", b"component"))?;
    answer(trusted.check("evil-1.0.0.wasm", b"evil"))
}

fn other_bytes() -> Answer {
    let (site, state) = Site::controlled()?;
    let (trusted, _) = site.update(&site.files(), state, site.now)?;
    control(&trusted.check("echo-1.0.0.wasm", b"component"))?;
    answer(trusted.check("echo-1.0.0.wasm", b"componenT"))
}

fn revoked(change: impl FnOnce(&mut viworks_signing::tuf::Revocations, String)) -> Answer {
    let (mut site, state) = Site::controlled()?;
    let digest = hex::encode(Sha256::digest(b"component"));
    let verdict = |trusted: &Trusted| trusted.revocations().refuses("echo", 0, 1, &digest);
    let (trusted, state) = site.update(&site.files(), state, site.now)?;
    control(&verdict(&trusted).map_or(Ok(()), Err))?;
    site.repo.revoke(|list| change(list, digest.clone()), site.now)?;
    site.publish()?;
    let (_, state) = site.update(&site.files(), state, site.now)?;
    // Offline, from what was kept.
    let trusted = state.trusted(&site.root())?;
    Ok(verdict(&trusted).map_or_else(|| ACCEPTED.to_owned(), |revoked| revoked.code().to_owned()))
}
