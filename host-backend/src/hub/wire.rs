//! The two directions of a session's socket. Reading is tungstenite's; writing is done
//! here, since frames of a server are a short header and bytes as they are: shared bytes
//! are not copied, and an idle session keeps no buffer (tungstenite would keep its largest).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use viworks_protocol::frame::MAX_FRAME;

/// A gateway's connection, upgraded.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "most are TLS, and what is split is put into a box anyway")]
pub(super) enum Socket {
    Tls(TlsStream<TcpStream>),
    /// From a proxy on this host that ends TLS itself.
    Plain(TcpStream),
}

/// Small frames are gathered up to this size before they are written.
const GATHER: usize = 8 * 1024;
/// An agent that takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(30);

/// What tungstenite reads from. What it would write (answers to pings and closings) is
/// written by the session itself.
#[derive(Debug)]
pub(super) struct Inbound(ReadHalf<Socket>);

#[derive(Debug)]
pub(super) struct Outbound {
    io: WriteHalf<Socket>,
    gathered: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Pong = 10,
}

/// Split an upgraded connection, of which `read` was read already.
pub(super) async fn split(socket: Socket, read: Vec<u8>) -> (WebSocketStream<Inbound>, Outbound) {
    let (inbound, io) = tokio::io::split(socket);
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_write_buffer_size(4096)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let inbound = WebSocketStream::from_partially_read(Inbound(inbound), read, Role::Server, Some(config)).await;
    (inbound, Outbound { io, gathered: Vec::new() })
}

impl Outbound {
    /// Queue a frame; it is on its way after [`Outbound::flush`] at the latest.
    pub(super) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        header(&mut self.gathered, opcode, payload.len());
        if payload.len() > GATHER / 2 {
            self.write_gathered().await?;
            return within(self.io.write_all(payload)).await;
        }
        self.gathered.extend_from_slice(payload);
        if self.gathered.len() >= GATHER { self.write_gathered().await } else { Ok(()) }
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.write_gathered().await?;
        within(self.io.flush()).await
    }

    /// Say goodbye to the socket.
    pub(super) async fn close(&mut self, code: u16) -> io::Result<()> {
        self.send(Opcode::Close, &code.to_be_bytes()).await?;
        self.flush().await?;
        within(self.io.shutdown()).await
    }

    async fn write_gathered(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        // Taken, not cleared: an idle session keeps no buffer.
        let gathered = std::mem::take(&mut self.gathered);
        within(self.io.write_all(&gathered)).await
    }
}

/// RFC 6455 §5.2: final, unmasked.
fn header(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    out.push(0x80 | opcode as u8);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

async fn within<T>(write: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl AsyncRead for Inbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_standard() {
        for (length, wanted) in [
            (5, vec![0x81, 5]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            header(&mut out, Opcode::Text, length);
            assert_eq!(out, wanted);
        }
    }
}
