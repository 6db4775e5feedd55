//! Everything that waits to be said to the backend, most urgent first. It is of use to its
//! own session alone: reports are kept by the journal and by the executor, and each session
//! begins with all that they hold. Each kind has its bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::chunk::Part;
use viworks_protocol::frame::{GatewayFrame, MAX_FRAME, PluginStatus};
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{Failure, Report};
use viworks_protocol::telemetry::Sample;

use super::progress::{Progress, Step};
use crate::journal::{Journal, JournalError};

/// Small frames that may wait; the oldest goes, since its loss only costs time.
const MAX_URGENT: usize = 4_096;

/// Statuses of plugins that may wait. What is lost is told at the next offer.
const MAX_PLUGIN_STATUSES: usize = 512;

/// Reports that may wait, and their bytes. What comes on top is taken again from where it
/// is kept, once these are said.
const MAX_REPORTS: usize = 1_024;
const MAX_REPORT_BYTES: usize = 16 * 1024 * 1024;

/// Reports taken from the journal at a time.
const PAGE: u32 = 32;

/// Until the journal is asked again after it could not be read.
const JOURNAL_PAUSE: Duration = Duration::from_secs(5);

/// Gives the reports that only memory keeps, the oldest first.
pub type Unacknowledged = Box<dyn Fn() -> Vec<(InvocationId, Arc<Report>)> + Send + Sync>;

/// Cheap to clone: many fill it, the session empties it.
#[derive(Clone)]
pub struct Outgoing {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
    journal: Journal,
    unacknowledged: Unacknowledged,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whether there is a session to say it in.
    open: bool,
    urgent: VecDeque<GatewayFrame>,
    /// By plugin and digest: what is active and what was refused in its place.
    plugins: BTreeMap<(String, String), PluginStatus>,
    reports: VecDeque<(InvocationId, Arc<Report>)>,
    report_bytes: usize,
    /// A report found no room: all that is kept has to go again.
    overflowed: bool,
    /// Where the next page of the journal begins, while there may be one.
    page: Option<u64>,
    journal_pause: Option<Instant>,
    progress: Progress,
    telemetry: Option<Sample>,
}

enum Next {
    Say(Utf8Bytes),
    ReadJournal(u64),
    Again,
    Wait(Option<Instant>),
}

impl Outgoing {
    #[must_use]
    pub fn new(journal: Journal, unacknowledged: Unacknowledged) -> Self {
        let (waiting, wake) = (Mutex::default(), Notify::new());
        Self { shared: Arc::new(Shared { waiting, wake, journal, unacknowledged }) }
    }

    /// The public half of the key that signs this gateway's receipts.
    pub(super) fn receipt_key(&self) -> Option<String> {
        self.shared.journal.receipt_key().map(str::to_owned)
    }

    /// It is journaled (or known) here: the gateway answers for it.
    pub fn accepted(&self, invocation: InvocationId) {
        self.urgent(GatewayFrame::Accepted { invocation });
    }

    pub fn pong(&self, nonce: u64) {
        self.urgent(GatewayFrame::Pong { nonce });
    }

    pub fn fetch(&self, digest: String, part: Part, offset: u32) {
        self.urgent(GatewayFrame::Fetch { digest, part, offset });
    }

    /// Ask for a file of the release repository's metadata.
    pub fn metadata(&self, name: String) {
        self.urgent(GatewayFrame::Metadata { name });
    }

    pub fn plugin(&self, status: PluginStatus) {
        self.fill(|waiting| {
            if waiting.open {
                let key = (status.plugin.clone(), status.digest.clone());
                if waiting.plugins.len() < MAX_PLUGIN_STATUSES || waiting.plugins.contains_key(&key) {
                    waiting.plugins.insert(key, status);
                }
            }
        });
    }

    pub fn progress(&self, invocation: InvocationId, done: u32, total: Option<u32>, message: String) {
        self.fill(|waiting| {
            if waiting.open {
                waiting.progress.put(invocation, Step { done, total, message }, Instant::now());
            }
        });
    }

    pub fn telemetry(&self, sample: Sample) {
        self.fill(|waiting| waiting.telemetry = waiting.open.then_some(sample));
    }

    /// A report, which somebody keeps until it is acknowledged.
    pub fn report(&self, invocation: InvocationId, report: Arc<Report>) {
        self.fill(|waiting| {
            waiting.progress.remove(&invocation);
            if waiting.open {
                waiting.put(invocation, report);
            }
        });
    }

    /// Whether nothing waits to be said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.urgent.is_empty() && waiting.reports.is_empty() && waiting.page.is_none() && !waiting.overflowed
    }

    /// A session began: all reports go again.
    pub(super) fn begin(&self) {
        let kept = (self.shared.unacknowledged)();
        self.fill(|waiting| {
            *waiting = Waiting { open: true, ..Waiting::default() };
            waiting.all_again(kept);
        });
    }

    /// The session ended, and what waited for it is void.
    pub(super) fn end(&self) {
        *self.lock() = Waiting::default();
    }

    /// The next frame, as soon as there is one.
    pub(super) async fn next(&self) -> Utf8Bytes {
        loop {
            let next = self.lock().next();
            match next {
                Next::Say(frame) => return frame,
                Next::ReadJournal(after) => self.turn(after).await,
                Next::Again => {
                    let kept = (self.shared.unacknowledged)();
                    self.lock().all_again(kept);
                }
                Next::Wait(None) => self.shared.wake.notified().await,
                Next::Wait(Some(until)) => {
                    let _ = tokio::time::timeout_at(until.into(), self.shared.wake.notified()).await;
                }
            }
        }
    }

    /// The next frame, if it is there already.
    pub(super) fn try_next(&self) -> Option<Utf8Bytes> {
        let mut waiting = self.lock();
        if waiting.urgent.is_empty() && waiting.reports.is_empty() {
            return None;
        }
        match waiting.next() {
            Next::Say(frame) => Some(frame),
            _ => None,
        }
    }

    /// Read a page of the journal's outbox.
    async fn turn(&self, after: u64) {
        let page = self.shared.journal.outbox(after, PAGE).await;
        let mut waiting = self.lock();
        match page {
            Ok(page) => {
                waiting.journal_pause = None;
                waiting.page = page.last().map(|last| last.place);
                for owed in page {
                    // A page is small, and read only when nothing else waits.
                    waiting.put(owed.invocation, Arc::new(owed.report));
                }
            }
            // There is no outbox in this run of the gateway.
            Err(_) if self.shared.journal.is_unusable() => waiting.page = None,
            Err(JournalError::Stopped) => waiting.page = None,
            Err(error) => {
                tracing::error!(%error, "the outbox can't be read");
                waiting.journal_pause = Some(Instant::now() + JOURNAL_PAUSE);
            }
        }
    }

    fn urgent(&self, frame: GatewayFrame) {
        self.fill(|waiting| {
            if waiting.open {
                if waiting.urgent.len() >= MAX_URGENT {
                    waiting.urgent.pop_front();
                }
                waiting.urgent.push_back(frame);
            }
        });
    }

    fn fill<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let value = change(&mut self.lock());
        self.shared.wake.notify_one();
        value
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change leaves it whole.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put(&mut self, invocation: InvocationId, report: Arc<Report>) {
        let bytes = weight(&report);
        if self.reports.len() >= MAX_REPORTS || (self.report_bytes + bytes > MAX_REPORT_BYTES && self.report_bytes > 0)
        {
            self.overflowed = true;
            return;
        }
        self.report_bytes += bytes;
        self.reports.push_back((invocation, report));
    }

    /// Whatever is kept goes (again): in memory, and in the journal from its beginning.
    fn all_again(&mut self, kept: Vec<(InvocationId, Arc<Report>)>) {
        self.overflowed = false;
        self.page = Some(0);
        for (invocation, report) in kept {
            self.put(invocation, report);
        }
    }

    fn next(&mut self) -> Next {
        let now = Instant::now();
        if let Some(frame) = self.urgent.pop_front() {
            return say(&frame);
        }
        if let Some((_, status)) = self.plugins.pop_first() {
            return say(&GatewayFrame::Plugin { status });
        }
        if let Some((invocation, report)) = self.reports.pop_front() {
            self.report_bytes = self.report_bytes.saturating_sub(weight(&report));
            return Next::Say(report_frame(invocation, &report));
        }
        if let Some((invocation, Step { done, total, message })) = self.progress.take(now) {
            return say(&GatewayFrame::Progress { invocation, done, total, message });
        }
        if let Some(sample) = self.telemetry.take() {
            return say(&GatewayFrame::Telemetry { sample });
        }
        let pause = self.journal_pause.filter(|until| *until > now);
        match self.page {
            Some(after) if pause.is_none() => return Next::ReadJournal(after),
            None if self.overflowed => return Next::Again,
            _ => {}
        }
        Next::Wait([self.progress.due(), pause].into_iter().flatten().min())
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("waiting", &self.shared.waiting).finish_non_exhaustive()
    }
}

/// About how many bytes a report holds.
fn weight(report: &Report) -> usize {
    let log: usize = report.log.iter().map(|line| line.message.len()).sum();
    let effects: usize = report.effects.iter().map(|effect| effect.summary.len()).sum();
    256 + report.result.as_ref().map_or(0, |result| result.get().len()) + log + effects
}

fn say(frame: &GatewayFrame) -> Next {
    Next::Say(text(frame))
}

/// A frame as text. Ours always serialise.
pub(super) fn text(frame: &GatewayFrame) -> Utf8Bytes {
    serde_json::to_string(frame)
        .inspect_err(|error| tracing::error!(%error, "a frame could not be written"))
        .unwrap_or_default()
        .into()
}

/// A report's frame, cut until it fits its bound: first the log, then the effects' list,
/// then the result itself.
fn report_frame(invocation: InvocationId, report: &Report) -> Utf8Bytes {
    let mut frame = GatewayFrame::Result { invocation, report: report.clone() };
    let mut written = text(&frame);
    for cut in [cut_log, cut_effects, cut_result] {
        if written.len() <= MAX_FRAME {
            break;
        }
        if let GatewayFrame::Result { report, .. } = &mut frame {
            cut(report);
        }
        written = text(&frame);
    }
    written
}

fn cut_log(report: &mut Report) {
    report.log.clear();
    report.log_truncated = true;
}

fn cut_effects(report: &mut Report) {
    for effect in &mut report.effects {
        effect.summary.truncate(effect.summary.floor_char_boundary(256));
    }
}

fn cut_result(report: &mut Report) {
    report.result = None;
    let message = "the result does not fit a frame and was dropped".to_owned();
    report.failure.get_or_insert(Failure { code: "limit".into(), message, rule: None });
}

#[cfg(test)]
mod tests;
