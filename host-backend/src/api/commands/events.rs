//! A command's events as a stream: every settled invocation from the store, once and in
//! order, progress as it is heard, and the end. A client that reads slowly is never
//! buffered for: what it has not taken is read again, and progress that it missed is gone.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event as Sse, KeepAlive, Sse as Stream};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use utoipa::ToSchema;

use super::body::{CommandSummary, Invocation};
use super::read;
use crate::api::Shared;
use crate::api::extract::Path;
use crate::api::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::dispatch::{Event, Progress};
use crate::store::model;

/// Invocations that are read, and held, at once.
const AT_ONCE: u32 = 16;
/// A comment is sent so often, so that proxies and clients see that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
const RESUME: HeaderName = HeaderName::from_static("last-event-id");

/// The data of a `progress` event.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressEvent {
    pub invocation: String,
    pub agent: String,
    pub done: u32,
    pub total: Option<u32>,
    pub message: String,
}

/// Events of a command until it ends: `invocation` (id, settled), `progress` (no id),
/// `finished`.
#[utoipa::path(get, operation_id = "stream_command_events", path = "/commands/{id}/events", tag = "commands",
    params(
        ("id" = String, Path),
        ("Last-Event-ID" = Option<u64>, Header, description = "Only what came after this event"),
    ),
    security(("token" = [])), responses(
    (status = 200, body = String, content_type = "text/event-stream"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let seen = match headers.get(RESUME) {
        None => 0,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| Problem::invalid("Last-Event-ID is not an id of this stream"))?,
    };
    let permit = api.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("as many event streams are open as may be", 10))?;
    let command = read::find(&api, &id).await?;
    // Subscribed before the store is read again: nothing falls between.
    let events = api.app.engine.subscribe(&command.id);
    let command = api.app.store.command(&command.id).await?.unwrap_or(command);
    let follower = Follower {
        open: Open::new(api.http.streams.clone(), permit),
        finished: command.finished_ms.is_some(),
        command,
        events,
        seen,
        unread: true,
        ready: VecDeque::new(),
        over: false,
        api,
    };
    let stream = stream::unfold(follower, async |mut follower| {
        let next = follower.next().await;
        next.map(|event| (event, follower))
    });
    let keep_alive = KeepAlive::new().interval(HEARTBEAT);
    let mut response = Stream::new(stream).keep_alive(keep_alive).into_response();
    // Proxies that buffer would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Counts the stream while it is open.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: Gauge, permit: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// One client's place in a command's events.
struct Follower {
    api: Shared,
    command: model::Command,
    events: broadcast::Receiver<Event>,
    /// The last settled invocation that was sent.
    seen: u64,
    /// The store may have more.
    unread: bool,
    finished: bool,
    ready: VecDeque<Sse>,
    over: bool,
    #[allow(dead_code, reason = "dropped with the stream")]
    open: Open,
}

impl Follower {
    /// `None` at the end, on shutdown, or when the store can't be read: the client comes
    /// back with the last id.
    async fn next(&mut self) -> Option<std::result::Result<Sse, axum::Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if self.unread {
                self.read().await.inspect_err(|e| tracing::warn!(problem = ?e, "an event stream ends")).ok()?;
                continue;
            }
            let shutdown = self.api.shutdown.clone();
            match shutdown.run_until_cancelled(self.events.recv()).await? {
                Ok(Event::Settled { last_seq }) => self.unread = last_seq > self.seen,
                Ok(Event::Progress(progress)) => {
                    self.ready.push_back(told("progress", &ProgressEvent::from(&*progress))?)
                }
                Ok(Event::Finished(ended)) => {
                    self.command = ended.command.clone();
                    (self.finished, self.unread) = (true, true);
                }
                Err(error) => self.catch_up(error).await.ok()?,
            }
        }
    }

    /// Some events were missed: the store knows what matters of them.
    async fn catch_up(&mut self, error: RecvError) -> Result<()> {
        if error == RecvError::Closed {
            self.events = self.api.app.engine.subscribe(&self.command.id);
        }
        if let Some(command) = self.api.app.store.command(&self.command.id).await? {
            self.finished = command.finished_ms.is_some();
            self.command = command;
        }
        self.unread = true;
        Ok(())
    }

    /// Take the next settled invocations, and the end if they are all.
    async fn read(&mut self) -> Result<()> {
        let settled = self.api.app.store.settled_after(&self.command.id, self.seen, AT_ONCE).await?;
        self.unread = settled.len() == AT_ONCE as usize;
        for invocation in settled {
            let seq = invocation.seq.unwrap_or(self.seen);
            self.seen = self.seen.max(seq);
            let event = told("invocation", &Invocation::from(invocation));
            self.ready.extend(event.map(|event| event.id(seq.to_string())));
        }
        if self.finished && !self.unread {
            self.ready.extend(told("finished", &CommandSummary::from(self.command.clone())));
            self.over = true;
        }
        Ok(())
    }
}

/// `None` would mean that it has no form as JSON, which does not happen.
fn told(kind: &str, data: &impl Serialize) -> Option<Sse> {
    Sse::default().event(kind).json_data(data).inspect_err(|error| tracing::error!(%error, kind, "no event")).ok()
}

impl From<&Progress> for ProgressEvent {
    fn from(progress: &Progress) -> Self {
        Self {
            invocation: progress.invocation.to_string(),
            agent: progress.agent.to_string(),
            done: progress.done,
            total: progress.total,
            message: progress.message.clone(),
        }
    }
}
