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
}

impl Supply {
    #[must_use]
    pub fn new(plugins: Plugins, outgoing: Outgoing) -> Self {
        Self { plugins, outgoing, waiting: VecDeque::new(), current: None, failures: 0 }
    }

    /// Serve until every sender is gone.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        loop {
            let delivery = match self.current {
                None => deliveries.recv().await,
                Some(_) => match timeout(PATIENCE, deliveries.recv()).await {
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
