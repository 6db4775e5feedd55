//! The way to the collector: spans in batches, each `POST`ed to its `/v1/traces` within a
//! deadline and tried again a few times. What it does not take then is dropped and counted:
//! a trace is never worth a request that waits.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Span, otlp};
use crate::metrics::{Kind, Metrics, Word};

const BATCH: usize = 512;
/// Spans of one request come together.
const GATHER: Duration = Duration::from_millis(200);
const POST_WITHIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// A collector's address: `http://host:port`, and a path before `/v1/traces` perhaps. Not
/// `https`: a collector runs beside each backend, and sends on as the site wants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint {
    authority: String,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not http://HOST:PORT, with a path perhaps")]
pub struct NoEndpoint(String);

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let no = || NoEndpoint(text.to_owned());
        let uri: hyper::Uri = text.parse().map_err(|_| no())?;
        let authority = uri.authority().filter(|a| a.port().is_some() && !a.as_str().contains('@')).ok_or_else(no)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(no());
        }
        Ok(Self { authority: authority.to_string(), path: format!("{}/v1/traces", uri.path().trim_end_matches('/')) })
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NoEndpoint;

    fn try_from(text: String) -> Result<Self, NoEndpoint> {
        text.parse()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector can't be reached")]
    Connect(#[source] std::io::Error),
    #[error("the exchange with the collector broke off")]
    Http(#[source] hyper::Error),
    #[error("the request can't be made")]
    Request(#[source] hyper::http::Error),
    #[error("the collector answered {0}")]
    Answer(StatusCode),
    #[error("the collector did not answer in time")]
    Timeout,
}

/// Clones share the queue.
#[derive(Debug, Clone)]
pub struct Exporter {
    endpoint: Endpoint,
    spans: Arc<Mutex<mpsc::Receiver<Span>>>,
    metrics: Metrics,
    instance: String,
}

impl Exporter {
    pub(super) fn new(endpoint: Endpoint, spans: mpsc::Receiver<Span>, metrics: Metrics) -> Self {
        let instance = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { endpoint, spans: Arc::new(Mutex::new(spans)), metrics, instance: instance.trim().to_owned() }
    }

    /// Export until `stop`, and then what is left.
    pub async fn run(self, stop: CancellationToken) {
        let mut spans = self.spans.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(count) = stop.run_until_cancelled(spans.recv_many(&mut batch, BATCH)).await {
            if count == 0 {
                return;
            }
            if batch.len() < BATCH {
                let _ = stop.run_until_cancelled(tokio::time::sleep(GATHER)).await;
                while batch.len() < BATCH
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(&mut batch, TRIES).await;
        }
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            self.send(&mut batch, 1).await;
        }
    }

    async fn send(&self, batch: &mut Vec<Span>, tries: u32) {
        let body = Bytes::from(otlp::request(batch, &self.instance).to_string());
        let mut done = Err(ExportError::Timeout);
        for attempt in 1..=tries {
            let post = tokio::time::timeout(POST_WITHIN, self.post(body.clone()));
            done = post.await.unwrap_or(Err(ExportError::Timeout));
            if done.is_ok() || attempt == tries {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let kind = match done {
            Ok(()) => "exported",
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, count = batch.len(), "spans were not taken");
                "failed"
            }
        };
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.metrics.spans.get_or_create(&Kind { kind: Word(kind) }).inc_by(count);
        batch.clear();
    }

    async fn post(&self, body: Bytes) -> Result<(), ExportError> {
        let stream = TcpStream::connect(&self.endpoint.authority).await.map_err(ExportError::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ExportError::Http)?;
        let request = Request::post(&self.endpoint.path)
            .header(HOST, &self.endpoint.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(ExportError::Request)?;
        let exchange = sender.send_request(request);
        tokio::pin!(exchange, connection);
        let answer = tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end before the answer was taken from it.
            _ = &mut connection => exchange.await,
        };
        let status = answer.map_err(ExportError::Http)?.status();
        if status.is_success() { Ok(()) } else { Err(ExportError::Answer(status)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_beside_the_backend() {
        let of = |text: &str| text.parse::<Endpoint>().map(|e| e.to_string());
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(of("http://[::1]:4318/otlp/").as_deref(), Ok("http://[::1]:4318/otlp/v1/traces"));
        for bad in ["https://a:1", "http://a", "a:4318", "http://u@a:1", "http://a:1/?q", ""] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
