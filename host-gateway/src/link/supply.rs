//! The supply of plugins: what the repository says first, then what the backend offers,
//! piece by piece, one plugin at a time, given to [`Plugins`] to judge. Refuses pieces that
//! nobody asked for, gives a fetch up that does not come on, and never makes the link wait
//! for a compiler.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use viworks_protocol::chunk::Chunk;
use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};

use super::Outgoing;
use super::metadata::{Metadata, Progress};
use crate::plugins::fetch::{Fetch, FetchError, Step, Want};
use crate::plugins::{Plugins, Rules};
use crate::selfupdate::SelfUpdate;

/// How long a piece may take to come, and how often it is asked for again.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;

/// How often the repository's age is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What the link and the owner's policy have for the supply.
#[derive(Debug)]
pub enum Delivery {
    Offers(Vec<PluginOffer>),
    Chunk(Chunk),
    Repository(u64),
    Metadata {
        name: String,
        text: Option<String>,
    },
    /// The owner's policy changed.
    Rules(Box<Rules>),
    Disconnected,
}

/// Deliveries that may wait; then the link waits.
pub const DELIVERIES: usize = 64;

/// The task that keeps this gateway's plugins as the backend offers them.
pub struct Supply {
    plugins: Plugins,
    outgoing: Outgoing,
    metadata: Metadata,
    /// Is told of the repository's news, and given the pieces that are of no plugin.
    program: Option<SelfUpdate>,
    /// What the backend offered in this session.
    offers: Option<Vec<PluginOffer>>,
    waiting: VecDeque<PluginOffer>,
    current: Option<Fetch>,
    /// A fetch that is not wanted now: if it is again, it goes on where it was.
    parked: Option<Fetch>,
    /// When the piece that was asked for is late.
    due: Option<Instant>,
    failures: u32,
    installing: Option<(PluginOffer, Installing)>,
    patience: Duration,
}

type Installing = Pin<Box<dyn Future<Output = PluginStatus> + Send>>;

/// What happened next.
enum Event {
    Delivery(Option<Delivery>),
    Installed(PluginStatus),
    Late,
    MetadataLate,
    Look,
}

impl Supply {
    #[must_use]
    pub fn new(plugins: Plugins, outgoing: Outgoing) -> Self {
        let metadata = Metadata::new(plugins.repository().clone(), outgoing.clone());
        Self {
            plugins,
            outgoing,
            metadata,
            program: None,
            offers: None,
            waiting: VecDeque::new(),
            current: None,
            parked: None,
            due: None,
            failures: 0,
            installing: None,
            patience: PATIENCE,
        }
    }

    /// Supply the gateway's own program too.
    #[must_use]
    pub fn with_program(self, program: Option<SelfUpdate>) -> Self {
        Self { program, ..self }
    }

    /// Serve until every sender is gone.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let event = tokio::select! {
                status = installed(&mut self.installing) => Event::Installed(status),
                delivery = deliveries.recv() => Event::Delivery(delivery),
                () = late(self.due) => Event::Late,
                () = late(self.metadata.due()) => Event::MetadataLate,
                _ = look.tick() => Event::Look,
            };
            match event {
                Event::Delivery(None) => return,
                Event::Delivery(Some(delivery)) => self.take(delivery).await,
                Event::Installed(status) => {
                    self.installing = None;
                    self.outgoing.plugin(status);
                    self.offered().await;
                }
                Event::Late => self.failed("no piece came"),
                Event::MetadataLate => {
                    let progress = self.metadata.late().await;
                    self.known(progress).await;
                }
                Event::Look => self.metadata.look(SystemTime::now()),
            }
        }
    }

    async fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Offers(offers) => {
                self.offers = Some(offers);
                self.offered().await;
            }
            Delivery::Chunk(chunk) => self.piece(&chunk),
            Delivery::Repository(timestamp) => {
                let progress = self.metadata.announced(timestamp).await;
                self.known(progress).await;
            }
            Delivery::Metadata { name, text } => {
                let progress = self.metadata.take(name, text).await;
                self.known(progress).await;
            }
            Delivery::Rules(rules) => {
                let statuses = self.plugins.go_by(*rules).await;
                self.tell(statuses);
                self.offered().await;
            }
            // The next session begins with offers: what is here is asked for from there on.
            Delivery::Disconnected => {
                self.waiting.clear();
                (self.offers, self.due) = (None, None);
                self.metadata.disconnected();
            }
        }
    }

    /// An update of the metadata came on, or ended.
    async fn known(&mut self, progress: Progress) {
        match progress {
            Progress::Same => return,
            Progress::Changed => {
                let statuses = self.plugins.review().await;
                self.tell(statuses);
            }
            Progress::Ended => {}
        }
        if let Some(program) = &self.program {
            program.look();
        }
        self.offered().await;
    }

    fn tell(&self, statuses: Vec<PluginStatus>) {
        statuses.into_iter().for_each(|status| self.outgoing.plugin(status));
    }

    /// Go by what is offered, once the repository was asked.
    async fn offered(&mut self) {
        if self.metadata.is_asking() {
            return;
        }
        let Some(offers) = &self.offers else { return };
        let mut wanted = self.plugins.reconcile(offers).await;
        // What became active, refused or retired by this is said by its status.
        self.tell(self.plugins.statuses());
        if let Some((offer, _)) = &self.installing {
            wanted.retain(|wanted| wanted.digest != offer.digest);
        }
        let current = self.current.take();
        match current {
            Some(fetch) if wanted.contains(fetch.offer()) => {
                wanted.retain(|wanted| wanted != fetch.offer());
                if self.due.is_none()
                    && let Some(want) = fetch.want()
                {
                    self.failures = 0;
                    self.ask(want);
                }
                self.current = Some(fetch);
            }
            Some(fetch) => self.parked = Some(fetch),
            None => {}
        }
        self.waiting = wanted.into();
        if self.current.is_none() {
            self.next();
        }
    }

    /// Begin with the next that waits, unless one is at work.
    fn next(&mut self) {
        (self.current, self.due, self.failures) = (None, None, 0);
        if self.installing.is_some() {
            return;
        }
        while let Some(offer) = self.waiting.pop_front() {
            let begun = match self.parked.take().filter(|parked| *parked.offer() == offer) {
                Some(parked) => Ok(parked),
                None => Fetch::new(offer.clone()),
            };
            match begun {
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

    fn piece(&mut self, chunk: &Chunk) {
        // Of a fetch that was given up, of nobody's, or of the gateway's own program.
        let of = |fetch: &Fetch| fetch.offer().digest == hex::encode(chunk.digest);
        if !self.current.as_ref().is_some_and(of)
            && let Some(program) = &self.program
        {
            program.piece(chunk);
        }
        let Some(fetch) = &mut self.current else { return };
        match fetch.take(chunk) {
            Ok(Step::Continue) => self.due = Some(Instant::now() + self.patience),
            Ok(Step::Ask(want)) => self.ask(want),
            Ok(Step::Whole) => self.whole(),
            // What was asked for twice comes twice.
            Err(FetchError::Foreign | FetchError::Offset { .. }) => {
                tracing::debug!(offset = chunk.offset, "a piece of a plugin that is not wanted now");
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn whole(&mut self) {
        let Some(fetch) = self.current.take() else { return };
        self.due = None;
        let offer = fetch.offer().clone();
        match fetch.finish() {
            Ok((offer, component, statements)) => {
                let (plugins, offered) = (self.plugins.clone(), offer.clone());
                let install = async move { plugins.install(offered, component, statements).await };
                self.installing = Some((offer, Box::pin(install)));
            }
            Err(error) => {
                self.refuse(&offer, &error);
                self.next();
            }
        }
    }

    fn ask(&mut self, Want { digest, part, offset }: Want) {
        self.due = Some(Instant::now() + self.patience);
        self.outgoing.fetch(digest, part, offset);
    }

    /// Ask again from where it is, or give it up: the next offer begins anew.
    fn failed(&mut self, why: &str) {
        self.failures += 1;
        self.due = None;
        let Some(fetch) = &self.current else { return };
        let offer = fetch.offer().clone();
        tracing::warn!(plugin = %offer.plugin, digest = %offer.digest, why, attempt = self.failures, "a fetch does not come on");
        match fetch.want().filter(|_| self.failures < ATTEMPTS) {
            Some(want) => self.ask(want),
            None => {
                let detail = format!("E_FETCH: fetch: {why}");
                self.outgoing.plugin(status(&offer, PluginState::Refused, Some(detail)));
                let given_up = self.current.take();
                self.next();
                self.parked = given_up;
            }
        }
    }

    fn refuse(&self, offer: &PluginOffer, error: &FetchError) {
        let detail = format!("E_FETCH: fetch: {error}");
        tracing::warn!(
            target: "audit",
            plugin = %offer.plugin, version = %offer.version, digest = %offer.digest, %detail, "plugin refused"
        );
        self.outgoing.plugin(status(offer, PluginState::Refused, Some(detail)));
    }
}

async fn installed(installing: &mut Option<(PluginOffer, Installing)>) -> PluginStatus {
    match installing {
        Some((_, installing)) => installing.await,
        None => std::future::pending().await,
    }
}

async fn late(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn status(offer: &PluginOffer, state: PluginState, detail: Option<String>) -> PluginStatus {
    let PluginOffer { plugin, version, digest, shadow, .. } = offer.clone();
    PluginStatus { plugin, version, digest, state, detail, shadow }
}

impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supply").field("current", &self.current).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
