//! The way to the engine's unix socket: one connection a request, with a budget of bytes.
//! An engine that answers without end, or says too much, is cut off.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker, errors::Error};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Of one answer, headers included.
pub(super) const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// No connection outlives this, whatever its request was given.
const MAX_LIFE: Duration = Duration::from_secs(600);

/// A client of the engine at `socket`. Nothing is connected yet.
pub(super) fn client(socket: &Path) -> Result<Docker, Error> {
    let socket = socket.to_owned();
    let transport = move |request: BollardRequest| send(socket.clone(), request);
    // The deadline of each request is its caller's.
    Docker::connect_with_custom_transport(transport, Some("http://engine"), MAX_LIFE.as_secs(), API_DEFAULT_VERSION)
}

async fn send(socket: PathBuf, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let stream = UnixStream::connect(&socket).await?;
    let io = TokioIo::new(Metered { stream, left: MAX_ANSWER });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // Drives the answer's body while it is read; ends with it, or when it is dropped.
    tokio::spawn(tokio::time::timeout(MAX_LIFE, connection));
    let (mut parts, body) = request.into_parts();
    // Without a version the engine answers in its own newest, which works with all of them:
    // only fields that every version has are used.
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse::<Uri>()?;
    parts.headers.insert(HOST, HeaderValue::from_static("engine"));
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(sender.send_request(Request::from_parts(parts, body)).await?)
}

/// A stream that fails once it gave its budget.
#[derive(Debug)]
struct Metered {
    stream: UnixStream,
    left: usize,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            match self.left.checked_sub(buf.filled().len() - before) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Err(io::Error::other("the answer is too long"))),
            }
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
