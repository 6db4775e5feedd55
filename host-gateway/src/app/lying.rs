//! A backend that lies, against a whole gateway with a release repository: metadata that goes
//! back or is withheld, bytes that were not offered, another plugin's release, chunks without
//! an end. Each lie is refused with its code, and what runs stays.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use viworks_protocol::chunk::{Chunk, MAX_BYTES, Part};
use viworks_protocol::frame::{BackendFrame, GatewayFrame, PluginOffer, PluginState, PluginStatus};
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;

use super::tests::Fixture;
use super::*;
use crate::link::tests::Peer;
use crate::trust::Standing;
use made::Made;

#[path = "../../tests/common/made.rs"]
mod made;

const MANIFEST: &str = r#"
id = "versions"
version = "1.0.0"
sequence = 1
description = "Writes one line"
host_api = "1.0"
[verbs.say]
effect = "read"
timeout_secs = 10
[limits]
memory_mib = 4
"#;

/// A release, and what the backend really sends of it.
#[derive(Clone)]
struct Served {
    offer: PluginOffer,
    component: Vec<u8>,
    statements: Vec<u8>,
    /// What its chunks say they are a part of.
    total: Option<u32>,
}

impl Served {
    fn new(n: u8, key: &SecretKey, made: Option<&mut Made>) -> Self {
        let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/versions/v1_0.wat");
        let mut component = wat::parse_file(text).unwrap();
        component.extend_from_slice(&[0, 3, 1, b'n', n]);
        let manifest = MANIFEST.replace("\"1.0.0\"", &format!("\"1.0.{n}\"")).replace("= 1\n", &format!("= {n}\n"));
        let parsed = Manifest::parse(&manifest).unwrap();
        let statement = viworks_signing::build_release(&component, &parsed).unwrap();
        let statements = viworks_signing::sign_release(&statement, &[key]).unwrap();
        if let Some(made) = made {
            made.add(&manifest, &component, &statements);
        }
        let offer = PluginOffer {
            plugin: parsed.id,
            version: parsed.version.to_string(),
            digest: hex::encode(Sha256::digest(&component)),
            component_size: component.len() as u32,
            statements_size: statements.len() as u32,
            shadow: false,
        };
        Self { offer, component, statements: statements.into_bytes(), total: None }
    }
}

/// What the backend has to say when it is asked.
#[derive(Clone, Default)]
struct Answers {
    files: BTreeMap<String, Vec<u8>>,
    served: Option<Served>,
}

impl Answers {
    /// Answer whatever is asked, until `told` says that this was the last word.
    async fn give(&self, peer: &mut Peer, mut told: impl FnMut(&PluginStatus) -> bool) -> PluginStatus {
        loop {
            match peer.hear().await.expect("the session goes on") {
                GatewayFrame::Metadata { name } => {
                    let text = self.files.get(&name).map(|bytes| String::from_utf8(bytes.clone()).unwrap());
                    peer.say(&BackendFrame::Metadata { name, text }).await;
                }
                GatewayFrame::Fetch { part, offset, .. } => {
                    let Some(served) = &self.served else { continue };
                    let bytes = if part == Part::Component { &served.component } else { &served.statements };
                    let total = served.total.unwrap_or(bytes.len() as u32);
                    let digest = hex::decode(&served.offer.digest).unwrap().try_into().unwrap();
                    for (i, piece) in bytes[offset as usize..].chunks(MAX_BYTES).enumerate() {
                        let offset = offset + (i * MAX_BYTES) as u32;
                        let bytes = Bytes::copy_from_slice(piece);
                        peer.chunk(&Chunk { part, digest, offset, total, bytes }).await;
                    }
                }
                GatewayFrame::Plugin { status } if told(&status) => return status,
                _ => {}
            }
        }
    }

    /// Answer until this release is refused with this code.
    async fn until_refused(&self, peer: &mut Peer, digest: &str, code: &str) {
        let refused = |status: &PluginStatus| {
            let detail = status.detail.as_deref().unwrap_or_default();
            status.digest == digest && status.state == PluginState::Refused && detail.starts_with(&format!("{code}: "))
        };
        patiently(self.give(peer, refused)).await;
    }

    /// Answer until this release is active.
    async fn until_active(&self, peer: &mut Peer, digest: &str) {
        patiently(self.give(peer, |status| status.digest == digest && status.state == PluginState::Active)).await;
    }

    /// Answer until the gateway's status shows what is waited for.
    async fn until_shown(&self, peer: &mut Peer, app: &App, shown: impl Fn(&crate::trust::TrustHealth) -> bool) {
        let looked = async {
            while !shown(&app.vitals.repository()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        patiently(async {
            tokio::select! {
                () = looked => {}
                _ = self.give(peer, |_| false) => {}
            }
        })
        .await;
    }
}

/// Something may be compiled meanwhile, on a busy host.
async fn patiently<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what).await.expect("it happens in time")
}

fn fault(app: &App) -> String {
    app.vitals.repository().fault.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lie_is_refused_and_what_runs_stays() {
    let mut fixture = Fixture::new().await;
    let key = SecretKey::generate();
    let mut made = Made::new();
    fixture.bench.file("release_keys", &key.public().to_pem().unwrap());
    fixture.bench.file("trusted_root", &String::from_utf8(made.root()).unwrap());
    let app = fixture.start().await.unwrap();
    let mut peer = fixture.server.welcome(20).await;
    let before = made.copy();
    let good = Served::new(1, &key, Some(&mut made));

    // Withheld: nothing new comes in, and the status says what is awaited.
    let silent = Answers { files: BTreeMap::new(), served: Some(good.clone()) };
    peer.say(&BackendFrame::Repository { timestamp: 7 }).await;
    peer.say(&BackendFrame::Plugins { plugins: vec![good.offer.clone()] }).await;
    silent.until_refused(&mut peer, &good.offer.digest, "E_REPOSITORY").await;
    assert!(fault(&app).starts_with("E_TUF_MISSING"), "{}", fault(&app));
    assert_eq!(app.vitals.repository().standing, Standing::Waiting);

    // Honest: the offer that was refused before comes in by itself.
    let honest = Answers { files: made.copy(), served: Some(good.clone()) };
    peer.say(&BackendFrame::Repository { timestamp: made.timestamp() }).await;
    honest.until_active(&mut peer, &good.offer.digest).await;
    let known = app.vitals.repository();
    assert_eq!((known.standing, known.timestamp, known.fault), (Standing::Fresh, Some(made.timestamp()), None));

    // Metadata that goes back.
    let old = Answers { files: before, served: None };
    peer.say(&BackendFrame::Repository { timestamp: 1 }).await;
    old.until_shown(&mut peer, &app, |health| health.fault.is_some()).await;
    assert!(fault(&app).starts_with("E_TUF_ROLLBACK"), "{}", fault(&app));

    // A repository that went stale: the newer release does not come in by it.
    let next = Served::new(2, &key, Some(&mut made));
    made.publish_before(Duration::from_secs(3 * 86_400));
    let stale = Answers { files: made.copy(), served: Some(next.clone()) };
    peer.say(&BackendFrame::Repository { timestamp: made.timestamp() }).await;
    peer.say(&BackendFrame::Plugins { plugins: vec![next.offer.clone()] }).await;
    stale.until_refused(&mut peer, &next.offer.digest, "E_TUF_TARGET").await;
    let is =
        |health: &crate::trust::TrustHealth, code: &str| health.fault.as_ref().is_some_and(|f| f.starts_with(code));
    stale.until_shown(&mut peer, &app, |health| is(health, "E_TUF_EXPIRED")).await;
    made.publish();
    let honest = Answers { files: made.copy(), served: None };
    peer.say(&BackendFrame::Repository { timestamp: made.timestamp() }).await;
    honest.until_shown(&mut peer, &app, |health| health.fault.is_none()).await;

    // A release of this plugin under another's name: refused before a byte of it is asked for.
    let foreign = PluginOffer { plugin: "accounts".into(), digest: next.offer.digest.clone(), ..good.offer.clone() };
    peer.say(&BackendFrame::Plugins { plugins: vec![good.offer.clone(), foreign.clone()] }).await;
    honest.until_refused(&mut peer, &foreign.digest, "E_TUF_TARGET").await;

    // Other bytes than were offered, and more of them than were offered.
    let mut other = next.clone();
    *other.component.last_mut().unwrap() ^= 1;
    let lying = Answers { files: made.copy(), served: Some(other) };
    peer.say(&BackendFrame::Plugins { plugins: vec![next.offer.clone()] }).await;
    lying.until_refused(&mut peer, &next.offer.digest, "E_FETCH").await;
    let endless = Served { total: Some(u32::MAX), ..next.clone() };
    let lying = Answers { files: made.copy(), served: Some(endless) };
    peer.say(&BackendFrame::Plugins { plugins: vec![next.offer.clone()] }).await;
    lying.until_refused(&mut peer, &next.offer.digest, "E_FETCH").await;
    // Nobody asked for these.
    for offset in 0..200 {
        let digest = hex::decode(&next.offer.digest).unwrap().try_into().unwrap();
        let bytes = Bytes::from(vec![0; MAX_BYTES]);
        let chunk = Chunk { part: Part::Component, digest, offset: offset * MAX_BYTES as u32, total: 1 << 30, bytes };
        peer.chunk(&chunk).await;
    }

    let health = app.vitals.health().await;
    let active = health.plugins.iter().find(|status| status.state == PluginState::Active);
    assert_eq!(active.map(|status| &status.digest), Some(&good.offer.digest), "{:?}", health.plugins);
    let honest = Answers { files: made.copy(), served: Some(next.clone()) };
    // And the truth still comes in.
    peer.say(&BackendFrame::Plugins { plugins: vec![next.offer.clone()] }).await;
    honest.until_active(&mut peer, &next.offer.digest).await;
    app.drain().await;
}
