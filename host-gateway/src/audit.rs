//! The audit log: one JSON line for each decision (an order accepted or refused, a denial,
//! a plugin admitted or refused, a session up or down). Whoever decides emits a `tracing`
//! event with the target `audit`; the layer here files it. Refuses to make anybody wait:
//! what does not fit the queue is counted, and the log says so.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::{mpsc, oneshot};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};
use viworks_protocol::ecs;

/// The target of events that belong into the audit log.
pub const TARGET: &str = "audit";

/// Records that may wait for the writer.
const QUEUE: usize = 4_096;

/// When the file is turned over, and how many old ones are kept.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const MAX_FILES: u32 = 8;

/// The handle on the log's writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    requests: mpsc::Sender<Request>,
    dropped: Arc<AtomicU64>,
    /// The last attempt to write failed.
    failing: Arc<AtomicBool>,
    /// Lines in the Elastic Common Schema, by this service.
    ecs: Option<Arc<ecs::Service>>,
}

#[derive(Debug)]
enum Request {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Open or create the log at `path`, private to this user, and start its writer.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Self::start(path, MAX_BYTES, MAX_FILES)
    }

    fn start(path: &Path, max_bytes: u64, max_files: u32) -> std::io::Result<Self> {
        let mut log = Log::open(path.to_owned(), max_bytes, max_files)?;
        let (requests, waiting) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let failing = Arc::clone(&log.failing);
        std::thread::Builder::new().name("audit".into()).spawn(move || log.serve(waiting, &counter))?;
        Ok(Self { requests, dropped, failing, ecs: None })
    }

    /// The layer that files audit events, whatever the log filter says.
    #[must_use]
    pub fn layer(&self) -> AuditLayer {
        AuditLayer { audit: self.clone() }
    }

    /// Lines in the Elastic Common Schema from now on.
    #[must_use]
    pub fn in_ecs(self, service: ecs::Service) -> Self {
        Self { ecs: Some(Arc::new(service)), ..self }
    }

    /// Whether the log can't be written just now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Records that were lost since the start: the queue was full, or the disk.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Wait until all that was recorded is on the disk, or `limit` has passed.
    pub async fn flush(&self, limit: Duration) {
        let (done, flushed) = oneshot::channel();
        let all = async {
            if self.requests.send(Request::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("the audit log was not flushed in time");
        }
    }

    fn record(&self, record: &Map<String, Value>) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        if self.requests.try_send(Request::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Files events of the target [`TARGET`] and no others.
#[derive(Debug)]
pub struct AuditLayer {
    audit: Audit,
}

impl<S: tracing::Subscriber> Layer<S> for AuditLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        let (at, mut record) = (rfc3339(OffsetDateTime::now_utc()), Map::new());
        if let Some(service) = &self.audit.ecs {
            event.record(&mut Fields(&mut record));
            let mut line = service.line(&at, event.metadata().level().as_str(), TARGET);
            record.into_iter().for_each(|(field, value)| line.field(&field, value));
            self.audit.record(&line.into_map());
            return;
        }
        record.insert("at".into(), Value::String(at));
        event.record(&mut Fields(&mut record));
        self.audit.record(&record);
    }
}

/// The event's text is the record's `event`.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "message" if !self.0.contains_key("event") => "event",
            name => name,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}").chars().take(1_024).collect()));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.chars().take(1_024).collect()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.format(format).unwrap_or_default()
}

/// The file, on the writer's thread.
struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    max_bytes: u64,
    max_files: u32,
    failing: Arc<AtomicBool>,
}

impl Log {
    fn open(path: PathBuf, max_bytes: u64, max_files: u32) -> std::io::Result<Self> {
        let file = open_private(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file: BufWriter::new(file), bytes, max_bytes, max_files, failing: Arc::default() })
    }

    fn serve(&mut self, mut requests: mpsc::Receiver<Request>, dropped: &AtomicU64) {
        let mut said = 0;
        while let Some(request) = requests.blocking_recv() {
            let mut next = Some(request);
            // All that waits, then one flush to the kernel.
            while let Some(request) = next {
                match request {
                    Request::Line(line) => self.count(|log| log.write(&line), dropped),
                    Request::Flush(done) => {
                        self.count(|log| log.file.flush().and_then(|()| log.file.get_ref().sync_data()), dropped);
                        let _ = done.send(());
                    }
                }
                next = requests.try_recv().ok();
            }
            let lost = dropped.load(Ordering::Relaxed);
            if lost > said {
                let at = rfc3339(OffsetDateTime::now_utc());
                let line = format!("{{\"at\":\"{at}\",\"event\":\"records lost\",\"count\":{}}}\n", lost - said);
                if self.write(line.as_bytes()).is_ok() {
                    said = lost;
                }
            }
            self.count(|log| log.file.flush(), dropped);
        }
        let _ = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
    }

    /// A failing disk loses records, counted, and is logged once.
    fn count(&mut self, work: impl FnOnce(&mut Self) -> std::io::Result<()>, dropped: &AtomicU64) {
        match work(self) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                dropped.fetch_add(1, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(path = %self.path.display(), %error, "the audit log can't be written");
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.turn_over()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// `audit.jsonl` becomes `audit.jsonl.1` and so on; the oldest goes.
    fn turn_over(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.max_files).rev() {
            if numbered(n).exists() {
                std::fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = BufWriter::new(open_private(&self.path)?);
        self.bytes = 0;
        Ok(())
    }
}

fn open_private(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    File::options().create(true).append(true).mode(0o600).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn files_decisions_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(audit.layer());
        tracing::subscriber::with_default(subscriber, || {
            let message = "wanted group wheel";
            tracing::info!(target: "audit", decision = "accepted", count = 3, "order");
            tracing::warn!(target: "audit", rule = "policy: accounts.groups", %message, "denied");
            tracing::info!("not a decision");
        });
        audit.flush(Duration::from_secs(5)).await;
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["event"], &lines[0]["decision"], &lines[0]["count"]),
            (&"order".into(), &"accepted".into(), &3.into())
        );
        assert_eq!((&lines[1]["event"], &lines[1]["message"]), (&"denied".into(), &"wanted group wheel".into()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn in_the_common_schema_where_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let service = ecs::Service { name: "viworks-gateway", version: "0", node: Some("web-01".into()) };
        let audit = Audit::open(&path).unwrap().in_ecs(service);
        let subscriber = tracing_subscriber::registry().with(audit.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "audit", decision = "refused", rule = "warrant", invocation = "inv-1", "order");
        });
        audit.flush(Duration::from_secs(5)).await;
        let line = &lines(&path)[0];
        assert_eq!((&line["event.action"], &line["event.outcome"]), (&"order".into(), &"failure".into()));
        assert_eq!((&line["event.dataset"], &line["service.node.name"]), (&"viworks.audit".into(), &"web-01".into()));
        assert_eq!((&line["message"], &line["labels"]["invocation"]), (&"order".into(), &"inv-1".into()));
    }

    #[tokio::test]
    async fn turns_over_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::start(&path, 100, 2).unwrap();
        for n in 0..40 {
            audit.record(&Map::from_iter([("n".to_owned(), n.into())]));
        }
        audit.flush(Duration::from_secs(5)).await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(lines(&path).last().unwrap()["n"], 39);
        assert!(std::fs::metadata(dir.path().join("audit.jsonl.2")).unwrap().len() <= 100);
    }

    #[tokio::test]
    async fn a_full_queue_loses_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut log = Log::open(path.clone(), MAX_BYTES, 1).unwrap();
        let (requests, waiting) = mpsc::channel(1);
        let audit = Audit { requests, dropped: Arc::default(), failing: Arc::default(), ecs: None };
        for n in 0..3 {
            audit.record(&Map::from_iter([("n".to_owned(), n.into())]));
        }
        assert_eq!(audit.dropped(), 2);
        let counter = Arc::clone(&audit.dropped);
        let writer = std::thread::spawn(move || log.serve(waiting, &counter));
        audit.flush(Duration::from_secs(5)).await;
        drop(audit);
        writer.join().unwrap();
        let lines = lines(&path);
        assert_eq!(lines.iter().find(|l| l["event"] == "records lost").unwrap()["count"], 2);
    }
}
