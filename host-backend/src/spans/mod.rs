//! Traces: spans from a request through its command's warrant to what gateways did, for the
//! share of requests that is sampled, sent to a collector by OTLP. A request that is not
//! sampled has no span at all, and one whose collector is slow is dropped and counted.
//!
//! - [`otlp`]: OTLP's JSON form · [`export`]: the queue and the way to the collector

mod export;
mod otlp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use viworks_protocol::trace::TraceContext;

use crate::metrics::Metrics;

pub use export::{Endpoint, Exporter};

/// Spans that wait for the collector.
const QUEUE: usize = 8_192;

/// What a span's value may be long.
const MAX_VALUE: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    Internal = 1,
    Server = 2,
    Producer = 4,
}

/// A span that ended.
#[derive(Debug, Clone)]
pub struct Span {
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    pub name: String,
    pub kind: SpanKind,
    pub start_ns: u64,
    pub end_ns: u64,
    pub failed: bool,
    pub attributes: Vec<(&'static str, String)>,
}

/// Decides who is sampled, and takes spans. Clones share everything; the default takes none.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Sampled when the next number is below it.
    threshold: u64,
    counter: AtomicU64,
    queue: mpsc::Sender<Span>,
    metrics: Metrics,
}

/// A span that has begun; [`Open::end`] hands it over. Clones are of the same span, so that
/// children can be begun elsewhere.
#[derive(Debug, Clone)]
pub struct Open {
    tracer: Tracer,
    span: Span,
}

/// Now, in Unix nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Tracer {
    /// A tracer and the exporter that it feeds; `share` of all requests is sampled.
    #[must_use]
    pub fn new(share: f64, endpoint: Endpoint, metrics: Metrics) -> (Self, Exporter) {
        let (queue, spans) = mpsc::channel(QUEUE);
        // Saturates at both ends.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share"
        )]
        let threshold = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        let mut seed = [0; 8];
        // Without randomness the sample begins elsewhere: no harm.
        let _ = getrandom::fill(&mut seed);
        let counter = AtomicU64::new(u64::from_le_bytes(seed));
        let exporter = Exporter::new(endpoint, spans, metrics.clone());
        (Self(Some(Arc::new(Inner { threshold, counter, queue, metrics }))), exporter)
    }

    /// The span of a request, if it is sampled: as the client's `traceparent` says, else by
    /// the configured share.
    #[must_use]
    pub fn request(&self, traceparent: Option<&str>, name: impl FnOnce() -> String) -> Option<Open> {
        let inner = self.0.as_ref()?;
        let parent = traceparent.and_then(TraceContext::parse);
        let sampled = match &parent {
            Some(parent) => parent.sampled,
            None => inner.is_next_sampled(),
        };
        if !sampled {
            return None;
        }
        let trace = parent.as_ref().map_or_else(random, |parent| parent.trace);
        let context = TraceContext { trace, span: random(), sampled: true };
        let span = Span {
            context,
            parent: parent.map(|parent| parent.span),
            name: name(),
            kind: SpanKind::Server,
            start_ns: now_ns(),
            end_ns: 0,
            failed: false,
            attributes: Vec::new(),
        };
        Some(Open { tracer: self.clone(), span })
    }

    fn take(&self, span: Span) {
        let Some(inner) = &self.0 else { return };
        if inner.queue.try_send(span).is_err() {
            Metrics::count(&inner.metrics.spans, "dropped");
        }
    }
}

impl Inner {
    /// A cheap, even sequence (splitmix64): no system call for who is not sampled.
    fn is_next_sampled(&self) -> bool {
        let mut z = self.counter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.threshold
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // All zeros would be invalid, and such a span is dropped by the collector.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

impl Open {
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.span.context
    }

    pub(crate) fn start_ns(&self) -> u64 {
        self.span.start_ns
    }

    /// A span below this one, begun now.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        let context = TraceContext { span: random(), ..self.span.context };
        let span = Span {
            context,
            parent: Some(self.span.context.span),
            name: name.into(),
            kind: SpanKind::Internal,
            start_ns: now_ns(),
            end_ns: 0,
            failed: false,
            attributes: Vec::new(),
        };
        Self { tracer: self.tracer.clone(), span }
    }

    #[must_use]
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.span.kind = kind;
        self
    }

    /// It began then, not when it was made.
    #[must_use]
    pub fn since(mut self, start_ns: u64) -> Self {
        self.span.start_ns = start_ns;
        self
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        let mut value = value.into();
        value.truncate(value.floor_char_boundary(MAX_VALUE));
        self.span.attributes.push((key, value));
        self
    }

    #[must_use]
    pub fn failed(mut self, failed: bool) -> Self {
        self.span.failed = failed;
        self
    }

    pub fn end(self) {
        self.end_at(now_ns());
    }

    pub fn end_at(mut self, end_ns: u64) {
        self.span.end_ns = end_ns.max(self.span.start_ns);
        self.tracer.take(self.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(share: f64) -> Tracer {
        let Ok(endpoint) = "http://127.0.0.1:4318".parse() else { panic!("an endpoint") };
        Tracer::new(share, endpoint, Metrics::default()).0
    }

    #[test]
    fn the_client_decides_and_else_the_share() {
        let asked = |share, parent: Option<&str>| tracer(share).request(parent, || "GET /agents".into());
        let (yes, no) = (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        );
        let Some(open) = asked(0.0, Some(yes)) else { panic!("sampled") };
        assert_eq!(open.context().trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(open.span.parent.map(hex::encode).as_deref(), Some("00f067aa0ba902b7"));
        let child = open.child("accept");
        assert_eq!((child.span.parent, child.context().trace), (Some(open.context().span), open.context().trace));
        assert!(asked(1.0, Some(no)).is_none());
        assert!(asked(0.0, None).is_none() && asked(0.0, Some("rubbish")).is_none());
        assert!(asked(1.0, None).is_some_and(|o| o.span.parent.is_none()));
        assert!(Tracer::default().request(Some(yes), String::new).is_none(), "no collector, no spans");
    }

    #[test]
    fn the_share_is_kept() {
        let tracer = tracer(0.1);
        let sampled = (0..20_000).filter(|_| tracer.request(None, String::new).is_some()).count();
        assert!((1_600..2_400).contains(&sampled), "{sampled} of 20,000");
    }
}
