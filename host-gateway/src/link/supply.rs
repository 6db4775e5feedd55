//! The supply of plugins: what the backend offers is fetched piece by piece, one plugin at
//! a time, and given to [`Plugins`] to judge. Refuses pieces that nobody asked for, and
//! gives a fetch up that does not come on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use viworks_protocol::chunk::Chunk;
use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};

use super::Outgoing;
use crate::plugins::Plugins;
use crate::plugins::fetch::{Fetch, FetchError, Step, Want};

/// How long a piece may take to come, and how often it is asked for again.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;

/// What the link has for the supply.
#[derive(Debug)]
pub enum Delivery {
    Offers(Vec<PluginOffer>),
    Chunk(Chunk),
    Disconnected,
}

/// Deliveries that may wait; then the link waits.
pub const DELIVERIES: usize = 64;

/// The task that keeps this gateway's plugins as the backend offers them.
#[derive(Debug)]
pub struct Supply {
    plugins: Plugins,
    outgoing: Outgoing,
    waiting: VecDeque<PluginOffer>,
    current: Option<Fetch>,
    failures: u32,
    patience: Duration,
}

impl Supply {
    #[must_use]
    pub fn new(plugins: Plugins, outgoing: Outgoing) -> Self {
        Self { plugins, outgoing, waiting: VecDeque::new(), current: None, failures: 0, patience: PATIENCE }
    }

    /// Serve until every sender is gone.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        loop {
            let delivery = match self.current {
                None => deliveries.recv().await,
                Some(_) => match timeout(self.patience, deliveries.recv()).await {
                    Ok(delivery) => delivery,
                    Err(_) => {
                        self.failed("no piece came");
                        continue;
                    }
                },
            };
            match delivery {
                None => return,
                Some(Delivery::Offers(offers)) => self.offered(&offers).await,
                Some(Delivery::Chunk(chunk)) => self.take(&chunk).await,
                // The next session begins with offers: what is here is asked for from there on.
                Some(Delivery::Disconnected) => self.waiting.clear(),
            }
        }
    }

    async fn offered(&mut self, offers: &[PluginOffer]) {
        let wanted = self.plugins.reconcile(offers).await;
        // What became active, refused or retired by this is said by its status.
        for status in self.plugins.statuses() {
            self.outgoing.plugin(status);
        }
        let current = self.current.take().filter(|fetch| wanted.contains(fetch.offer()));
        self.waiting = wanted.into_iter().filter(|o| current.as_ref().is_none_or(|c| c.offer() != o)).collect();
        self.failures = 0;
        match current.as_ref().and_then(Fetch::want) {
            Some(want) => {
                self.current = current;
                self.ask(want);
            }
            None => self.next(),
        }
    }

    /// Begin with the next that waits.
    fn next(&mut self) {
        self.current = None;
        self.failures = 0;
        while let Some(offer) = self.waiting.pop_front() {
            match Fetch::new(offer.clone()) {
                Ok(fetch) => {
                    self.outgoing.plugin(status(&offer, PluginState::Fetching, None));
                    let want = fetch.want();
                    self.current = Some(fetch);
                    if let Some(want) = want {
                        self.ask(want);
                    }
                    return;
                }
                Err(error) => self.refuse(&offer, &error),
            }
        }
    }

    async fn take(&mut self, chunk: &Chunk) {
        // Of a fetch that was given up, or of nobody's.
        let Some(fetch) = &mut self.current else { return };
        match fetch.take(chunk) {
            Ok(Step::Continue) => {}
            Ok(Step::Ask(want)) => self.ask(want),
            Ok(Step::Whole) => self.whole().await,
            // What was asked for twice comes twice.
            Err(FetchError::Foreign | FetchError::Offset { .. }) => {
                tracing::debug!(offset = chunk.offset, "a piece of a plugin that is not wanted now");
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    async fn whole(&mut self) {
        let Some(fetch) = self.current.take() else { return };
        let offer = fetch.offer().clone();
        match fetch.finish() {
            Ok((offer, component, statements)) => {
                let status = self.plugins.install(offer, component, statements).await;
                self.outgoing.plugin(status);
            }
            Err(error) => self.refuse(&offer, &error),
        }
        self.next();
    }

    fn ask(&self, Want { digest, part, offset }: Want) {
        self.outgoing.fetch(digest, part, offset);
    }

    /// Ask again from where it is, or give it up: the next offer begins anew.
    fn failed(&mut self, why: &str) {
        self.failures += 1;
        let Some(fetch) = &self.current else { return };
        let offer = fetch.offer().clone();
        tracing::warn!(plugin = %offer.plugin, digest = %offer.digest, why, attempt = self.failures, "a fetch does not come on");
        match fetch.want().filter(|_| self.failures < ATTEMPTS) {
            Some(want) => self.ask(want),
            None => self.next(),
        }
    }

    fn refuse(&self, offer: &PluginOffer, error: &FetchError) {
        let detail = format!("E_FETCH: {error}");
        tracing::warn!(
            target: "audit",
            plugin = %offer.plugin, version = %offer.version, digest = %offer.digest, %detail, "plugin refused"
        );
        self.outgoing.plugin(status(offer, PluginState::Refused, Some(detail)));
    }
}

fn status(offer: &PluginOffer, state: PluginState, detail: Option<String>) -> PluginStatus {
    let PluginOffer { plugin, version, digest, .. } = offer.clone();
    PluginStatus { plugin, version, digest, state, detail }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};
    use tokio::task::JoinHandle;
    use viworks_protocol::chunk::Part;
    use viworks_protocol::frame::GatewayFrame;

    use super::*;
    use crate::config::Policy;
    use crate::journal::Journal;
    use crate::plugins::{Registry, Rules};
    use crate::runtime::{Runtime, RuntimeConfig};

    const COMPONENT: &[u8] = b"no component at all";
    const STATEMENTS: &[u8] = b"nobody's statements";

    struct Fixture {
        _dir: tempfile::TempDir,
        outgoing: Outgoing,
        deliveries: mpsc::Sender<Delivery>,
        task: JoinHandle<()>,
    }

    async fn start(patience: Duration) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let outgoing = Outgoing::new(Journal::open(dir.path()).unwrap(), Box::new(Vec::new));
        let runtime =
            Arc::new(Runtime::new(RuntimeConfig { max_concurrency: 1, memory_mib: 1, instances: 1 }).unwrap());
        let rules = Rules { release_keys: Vec::new(), policy: Policy::default() };
        let plugins = Plugins::open(dir.path(), rules, runtime, Arc::<Registry>::default()).unwrap();
        let (deliveries, receiver) = mpsc::channel(DELIVERIES);
        let supply = Supply { patience, ..Supply::new(plugins, outgoing.clone()) };
        outgoing.begin();
        Fixture { _dir: dir, outgoing, deliveries, task: tokio::spawn(supply.run(receiver)) }
    }

    impl Fixture {
        async fn deliver(&self, delivery: Delivery) {
            self.deliveries.send(delivery).await.unwrap();
        }

        async fn said(&self) -> GatewayFrame {
            let frame = timeout(Duration::from_secs(10), self.outgoing.next()).await.unwrap();
            serde_json::from_str(&frame).unwrap()
        }

        /// The next request, and the statuses before it.
        async fn asked(&self) -> (Part, u32) {
            loop {
                match self.said().await {
                    GatewayFrame::Fetch { part, offset, .. } => return (part, offset),
                    GatewayFrame::Plugin { status } => assert_eq!(status.state, PluginState::Fetching),
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn refused(&self) -> PluginStatus {
            loop {
                match self.said().await {
                    GatewayFrame::Plugin { status } if status.state == PluginState::Refused => return status,
                    GatewayFrame::Plugin { .. } | GatewayFrame::Fetch { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn offer(plugin: &str) -> PluginOffer {
        PluginOffer {
            plugin: plugin.into(),
            version: "1.0.0".into(),
            digest: hex::encode(Sha256::digest(COMPONENT)),
            component_size: COMPONENT.len() as u32,
            statements_size: STATEMENTS.len() as u32,
        }
    }

    fn piece(part: Part, offset: usize, bytes: &'static [u8], total: usize) -> Delivery {
        let digest = Sha256::digest(COMPONENT).into();
        let (offset, total) = (offset as u32, total as u32);
        Delivery::Chunk(Chunk { part, digest, offset, total, bytes: Bytes::from_static(bytes) })
    }

    #[tokio::test]
    async fn pieces_are_asked_for_resumed_and_judged() {
        let fixture = start(PATIENCE).await;
        fixture.deliver(piece(Part::Component, 0, COMPONENT, COMPONENT.len())).await;
        fixture.deliver(Delivery::Offers(vec![offer("accounts")])).await;
        assert_eq!(fixture.asked().await, (Part::Statements, 0));
        fixture.deliver(piece(Part::Statements, 0, STATEMENTS, STATEMENTS.len())).await;
        assert_eq!(fixture.asked().await, (Part::Component, 0));
        fixture.deliver(piece(Part::Component, 0, &COMPONENT[..5], COMPONENT.len())).await;
        fixture.deliver(Delivery::Disconnected).await;
        fixture.deliver(Delivery::Offers(vec![offer("accounts")])).await;
        assert_eq!(fixture.asked().await, (Part::Component, 5), "it goes on where it was");
        fixture.deliver(piece(Part::Component, 5, &COMPONENT[5..], COMPONENT.len())).await;
        let refused = fixture.refused().await;
        assert_eq!(refused.plugin, "accounts");
        assert!(refused.detail.unwrap().starts_with("E_"));
        drop(fixture.deliveries);
        timeout(Duration::from_secs(10), fixture.task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_bad_offer_is_refused_and_the_next_one_fetched() {
        let fixture = start(PATIENCE).await;
        let bad = PluginOffer { component_size: u32::MAX, ..offer("huge") };
        fixture.deliver(Delivery::Offers(vec![bad, offer("accounts")])).await;
        assert_eq!(fixture.refused().await.detail.unwrap().split(':').next(), Some("E_FETCH"));
        fixture.deliver(Delivery::Offers(vec![offer("accounts")])).await;
        assert_eq!(fixture.asked().await, (Part::Statements, 0));
    }

    #[tokio::test]
    async fn what_does_not_come_is_asked_for_again_and_then_given_up() {
        let fixture = start(Duration::from_millis(20)).await;
        fixture.deliver(Delivery::Offers(vec![offer("slow"), offer("next")])).await;
        let mut asked = 0;
        while asked < ATTEMPTS {
            if let GatewayFrame::Fetch { .. } = fixture.said().await {
                asked += 1;
            }
        }
        // The next one's request may come before its status; no third frame comes first.
        let mut told = None;
        for _ in 0..2 {
            if let GatewayFrame::Plugin { status } = fixture.said().await {
                told.get_or_insert(status.plugin);
            }
        }
        assert_eq!(told.as_deref(), Some("next"));
    }
}
