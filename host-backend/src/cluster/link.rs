//! The connection to Redis: made, watched and made again with growing pauses; published to
//! and listened on. Nothing here waits for a Redis that is gone: without a connection, who
//! asks is told so at once.

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::bus::{Ears, Heard};
use super::event::{self, Event, MAX_EVENTS};
use crate::metrics::{Kind, Metrics, Word};

/// Longer, and Redis counts as gone.
const WITHIN: Duration = Duration::from_millis(1_000);
/// Between two looks whether it is there.
const WATCH: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A handle; clones share the connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    instance: Arc<str>,
    /// Of all keys and channels, so that two groups may share one Redis.
    prefix: String,
    metrics: Metrics,
    /// None while Redis is gone.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own form would show the password.
        f.debug_struct("Link").field("prefix", &self.0.prefix).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(client: Client, instance: Arc<str>, group: &str, metrics: Metrics) -> Self {
        let prefix = format!("viworks:{group}:");
        Self(Arc::new(Inner { client, instance, prefix, metrics, connection: Mutex::new(None) }))
    }

    /// Whether Redis answered lately.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.lock().is_some()
    }

    /// A connection, unless Redis is gone.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.lock().clone()
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// Something failed on it: until it answers again it counts as gone.
    pub(super) fn failed(&self, error: &RedisError) {
        self.0.metrics.redis_errors.inc();
        if self.lock().take().is_some() {
            tracing::warn!(%error, "Redis is gone: the store is asked instead");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &'static str, by: usize) {
        self.0.metrics.bus_messages.get_or_create(&Kind { kind: Word(kind) }).inc_by(by as u64);
    }

    /// Connect, listen, connect again, until `stop`.
    pub(super) async fn run(self, ears: Ears, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = stop.run_until_cancelled(self.session(&ears)).await;
            let Some(error) = ended else { break };
            self.failed(&error);
            tracing::debug!(%error, ?pause, "no connection to Redis");
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.lock().take();
    }

    /// One connection each way; answers why it ended.
    async fn session(&self, ears: &Ears) -> RedisError {
        match self.listen(ears).await {
            Ok(()) => closed(),
            Err(error) => error,
        }
    }

    async fn listen(&self, ears: &Ears) -> Result<(), RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(WITHIN)).set_response_timeout(Some(WITHIN));
        let mut connection = self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
        let subscribe = async {
            let mut heard = self.0.client.get_async_pubsub().await?;
            heard.subscribe(self.key("bus")).await?;
            Ok::<_, RedisError>(heard)
        };
        let (mut sink, mut heard) = timeout(WITHIN, subscribe).await.map_err(|_| closed())??.split();
        *self.lock() = Some(connection.clone());
        tracing::info!("connected to Redis");
        // What was said meanwhile nobody repeats.
        ears.tell(Heard::Gap);
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = heard.next() => {
                    let Some(message) = message else { return Ok(()) };
                    match event::read(&self.0.instance, message.get_payload_bytes()) {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => {
                            self.count("in", 1);
                            ears.tell(Heard::Events(events.into()));
                        }
                        Err(error) => {
                            self.count("refused", 1);
                            tracing::warn!(%error, "a message of the bus is refused");
                        }
                    }
                }
                _ = watch.tick() => {
                    let both = async {
                        redis::cmd("PING").query_async::<()>(&mut connection).await?;
                        sink.ping::<redis::Value>().await.map(drop)
                    };
                    timeout(WITHIN, both).await.map_err(|_| closed())??;
                    if !self.is_up() {
                        // Given up by somebody who used it.
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Publish what waits, many events in a message, until `stop`.
    pub(super) async fn publish(self, out: Arc<tokio::sync::Mutex<mpsc::Receiver<Event>>>, stop: CancellationToken) {
        let mut out = out.lock().await;
        let mut waiting = Vec::with_capacity(MAX_EVENTS);
        while let Some(count) = stop.run_until_cancelled(out.recv_many(&mut waiting, MAX_EVENTS)).await {
            if count == 0 {
                return;
            }
            let mut seen = std::collections::HashSet::new();
            let events: Vec<Event> = waiting.drain(..).filter(|event| seen.insert(event.clone())).collect();
            let mut left = &events[..];
            while !left.is_empty() {
                let (text, count) = event::write(&self.0.instance, left);
                left = &left[count..];
                self.say(text).await;
            }
        }
    }

    async fn say(&self, text: String) {
        let Some(mut connection) = self.connection() else { return self.count("lost", 1) };
        let told = redis::cmd("PUBLISH").arg(self.key("bus")).arg(text).query_async::<()>(&mut connection).await;
        match told {
            Ok(()) => self.count("out", 1),
            Err(error) => {
                self.count("lost", 1);
                self.failed(&error);
            }
        }
    }
}

fn closed() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
