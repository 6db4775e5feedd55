//! Asks a running gateway over its status socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{Health, LIMIT};

const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no gateway answers on {0}")]
    Connect(PathBuf, #[source] std::io::Error),
    #[error("the gateway's answer broke off")]
    Http(#[source] hyper::Error),
    #[error("the gateway's answer is not its health")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the gateway did not answer in time")]
    Timeout,
}

/// The health of the gateway behind `socket`.
///
/// # Errors
/// When none answers, or not with its health.
pub async fn ask(socket: &Path) -> Result<Health, AskError> {
    let body = tokio::time::timeout(LIMIT, get(socket, "/health")).await.map_err(|_| AskError::Timeout)??;
    serde_json::from_slice(&body).map_err(|e| AskError::Answer(e.into()))
}

/// The metrics' text, as node_exporter's textfile collector wants it.
///
/// # Errors
/// When no gateway answers, or not with text.
pub async fn metrics_of(socket: &Path) -> Result<String, AskError> {
    let body = tokio::time::timeout(LIMIT, get(socket, "/metrics")).await.map_err(|_| AskError::Timeout)??;
    String::from_utf8(body.to_vec()).map_err(|e| AskError::Answer(e.into()))
}

async fn get(socket: &Path, path: &str) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(socket).await.map_err(|e| AskError::Connect(socket.to_owned(), e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Http)?;
    let request = Request::get(path).header(HOST, "gateway").body(Empty::<Bytes>::new());
    let request = request.map_err(|e| AskError::Answer(e.into()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(AskError::Http)?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(AskError::Answer)?;
        Ok(body.to_bytes())
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer was taken from it.
        _ = &mut connection => exchange.await,
    }
}
