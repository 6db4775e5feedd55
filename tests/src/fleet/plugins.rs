//! A simulated gateway's plugins: fetched piece by piece, hashed and not kept. What came
//! whole once is not fetched again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Error, Result};
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};
use viworks_protocol::chunk::{Chunk, Part};
use viworks_protocol::frame::{GatewayFrame, PluginOffer, PluginState, PluginStatus};

use super::Counts;

#[derive(Debug, Default)]
pub(super) struct Plugins {
    active: BTreeMap<String, PluginStatus>,
    /// Digests of what came whole.
    whole: BTreeSet<String>,
    waiting: VecDeque<PluginOffer>,
    current: Option<Fetch>,
}

#[derive(Debug)]
struct Fetch {
    offer: PluginOffer,
    part: Part,
    hash: Sha256,
    received: u32,
}

fn status(offer: &PluginOffer, state: PluginState) -> PluginStatus {
    let PluginOffer { plugin, version, digest, shadow, .. } = offer.clone();
    PluginStatus { plugin, version, digest, state, detail: None, shadow }
}

/// A shadow lies apart from what serves.
fn place(offer: &PluginOffer) -> String {
    if offer.shadow { format!("{} (shadow)", offer.plugin) } else { offer.plugin.clone() }
}

impl Plugins {
    /// The digest of the active release.
    pub fn active(&self, plugin: &str) -> Option<&String> {
        self.active.get(plugin).map(|status| &status.digest)
    }

    pub fn statuses(&self) -> Vec<PluginStatus> {
        self.active.values().cloned().collect()
    }

    /// What to say and to ask for.
    pub fn offered(&mut self, offers: Vec<PluginOffer>) -> Vec<GatewayFrame> {
        self.active.retain(|at, _| offers.iter().any(|offer| place(offer) == *at));
        (self.waiting, self.current) = (VecDeque::new(), None);
        let mut frames = Vec::new();
        for offer in offers {
            if self.active(&place(&offer)) == Some(&offer.digest) {
                continue;
            }
            if self.whole.contains(&offer.digest) {
                frames.push(self.activate(&offer));
            } else {
                self.waiting.push_back(offer);
            }
        }
        frames.extend(self.next());
        frames
    }

    fn activate(&mut self, offer: &PluginOffer) -> GatewayFrame {
        let status = status(offer, PluginState::Active);
        self.active.insert(place(offer), status.clone());
        GatewayFrame::Plugin { status }
    }

    fn next(&mut self) -> Vec<GatewayFrame> {
        let Some(offer) = self.waiting.pop_front() else { return Vec::new() };
        let fetch = |part| GatewayFrame::Fetch { digest: offer.digest.clone(), part, offset: 0 };
        let frames =
            vec![GatewayFrame::Plugin { status: status(&offer, PluginState::Fetching) }, fetch(Part::Statements)];
        self.current = Some(Fetch { offer, part: Part::Statements, hash: Sha256::new(), received: 0 });
        frames
    }

    /// A piece came; what to say and to ask for then.
    pub fn take(&mut self, frame: &bytes::Bytes, counts: &Counts) -> Result<Vec<GatewayFrame>> {
        let chunk = Chunk::decode(frame).map_err(Error::other)?;
        let Some(fetch) = self.current.as_mut().filter(|fetch| {
            hex::encode(chunk.digest) == fetch.offer.digest
                && (chunk.part, chunk.offset) == (fetch.part, fetch.received)
        }) else {
            return Ok(Vec::new());
        };
        fetch.hash.update(&chunk.bytes);
        fetch.received += u32::try_from(chunk.bytes.len()).map_err(Error::other)?;
        if fetch.received < chunk.total {
            return Ok(Vec::new());
        }
        if fetch.part == Part::Statements {
            (fetch.part, fetch.hash, fetch.received) = (Part::Component, Sha256::new(), 0);
            let digest = fetch.offer.digest.clone();
            return Ok(vec![GatewayFrame::Fetch { digest, part: Part::Component, offset: 0 }]);
        }
        let Some(Fetch { offer, hash, .. }) = self.current.take() else { return Ok(Vec::new()) };
        let mut frames = if hex::encode(hash.finalize()) == offer.digest {
            counts.fetched.fetch_add(1, Ordering::Relaxed);
            self.whole.insert(offer.digest.clone());
            vec![self.activate(&offer)]
        } else {
            counts.mismatched.fetch_add(1, Ordering::Relaxed);
            vec![GatewayFrame::Plugin { status: status(&offer, PluginState::Refused) }]
        };
        frames.extend(self.next());
        Ok(frames)
    }
}
