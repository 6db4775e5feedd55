//! The PROXY protocol, versions 1 and 2 (HAProxy's specification, 2020/03/05): who the peer
//! of a proxy's peer is. Refuses what is malformed, too long, slow, or no TCP connection;
//! reads not one byte beyond the header, which is TLS's or HTTP's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// A header has to have come whole in this time.
pub const WITHIN: Duration = Duration::from_secs(5);

/// The longest line of version 1, its end included.
const V1_MAX: usize = 107;
/// The shortest: `PROXY UNKNOWN` and its end.
const V1_MIN: usize = 15;
/// Of version 2: addresses and what proxies add in practice. The format allows 64 KiB.
const V2_MAX: usize = 1_024;
const V2_HEAD: usize = 16;
const V2_MAGIC: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("no PROXY protocol header")]
    Missing,
    #[error("a PROXY protocol header that is malformed")]
    Malformed,
    #[error("a PROXY protocol header longer than is taken")]
    TooLong,
    #[error("a PROXY protocol header of a connection that is no TCP")]
    Family,
    #[error("no whole PROXY protocol header in {} seconds", WITHIN.as_secs())]
    Slow,
    #[error("the connection ended within its PROXY protocol header")]
    Closed,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The proxy speaks for itself, as in its health checks, or does not know for whom.
    Own,
    Of(SocketAddr),
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// At least so many bytes more are needed, all of them the header's.
    More(usize),
    /// The header is the first so many bytes.
    Whole(Source, usize),
}

/// Read the header off `stream`, within [`WITHIN`].
///
/// # Errors
/// When there is none that can be believed; the connection is of no use then.
pub async fn read(stream: &mut TcpStream) -> Result<Source, ProxyError> {
    tokio::time::timeout(WITHIN, take(stream)).await.unwrap_or(Err(ProxyError::Slow))
}

async fn take(stream: &mut TcpStream) -> Result<Source, ProxyError> {
    let mut bytes = Vec::with_capacity(V2_HEAD);
    loop {
        match parse(&bytes)? {
            Parsed::Whole(source, _) => return Ok(source),
            Parsed::More(more) => {
                let from = bytes.len();
                bytes.resize(from + more, 0);
                stream.read_exact(&mut bytes[from..]).await.map_err(|e: io::Error| match e.kind() {
                    io::ErrorKind::UnexpectedEof if from == 0 => ProxyError::Missing,
                    _ => ProxyError::Closed,
                })?;
            }
        }
    }
}

/// Look at the first bytes of a connection.
///
/// # Errors
/// As soon as they can't be the beginning of a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let begins = |magic: &[u8]| bytes.iter().zip(magic).all(|(a, b)| a == b);
    if begins(b"PROXY ") {
        v1(bytes)
    } else if begins(&V2_MAGIC) {
        v2(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

fn v1(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if bytes.len() < V1_MIN {
        return Ok(Parsed::More(V1_MIN - bytes.len()));
    }
    let Some(end) = bytes.iter().take(V1_MAX).position(|b| *b == b'\n') else {
        // One at a time: what follows the line is not ours.
        return if bytes.len() < V1_MAX { Ok(Parsed::More(1)) } else { Err(ProxyError::TooLong) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(ProxyError::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Source::Own,
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            let _: Ipv4Addr = to.parse().map_err(|_| ProxyError::Malformed)?;
            let from: Ipv4Addr = from.parse().map_err(|_| ProxyError::Malformed)?;
            ports(from.into(), from_port, to_port)?
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            let _: Ipv6Addr = to.parse().map_err(|_| ProxyError::Malformed)?;
            let from: Ipv6Addr = from.parse().map_err(|_| ProxyError::Malformed)?;
            ports(from.into(), from_port, to_port)?
        }
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Parsed::Whole(source, end + 1))
}

fn ports(from: IpAddr, from_port: &str, to_port: &str) -> Result<Source, ProxyError> {
    let plain = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let led = text.len() > 1 && text.starts_with('0');
        if digits && !led { text.parse::<u16>().ok() } else { None }.ok_or(ProxyError::Malformed)
    };
    plain(to_port)?;
    Ok(Source::Of(SocketAddr::new(from.to_canonical(), plain(from_port)?)))
}

fn v2(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD) else {
        return Ok(Parsed::More(V2_HEAD - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_MAX {
        return Err(ProxyError::TooLong);
    }
    let local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed),
    };
    if rest.len() < length {
        return Ok(Parsed::More(length - rest.len()));
    }
    // What lies behind the addresses (TLVs) is of no use here.
    let body = &rest[..length];
    let whole = |source| Ok(Parsed::Whole(source, V2_HEAD + length));
    match head[13] {
        // Whoever speaks for himself may say anything about addresses.
        _ if local => whole(Source::Own),
        0x00 => whole(Source::Own),
        0x11 => {
            let [a, b, c, d, _, _, _, _, hi, lo, _, _] = *body.first_chunk::<12>().ok_or(ProxyError::Malformed)?;
            whole(Source::Of(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([hi, lo])))))
        }
        0x21 => {
            let from: [u8; 16] = *body.first_chunk().ok_or(ProxyError::Malformed)?;
            let ports = body.get(32..36).ok_or(ProxyError::Malformed)?;
            let from = IpAddr::from(from).to_canonical();
            whole(Source::Of(SocketAddr::new(from, u16::from_be_bytes([ports[0], ports[1]]))))
        }
        0x12 | 0x22 | 0x31 | 0x32 => Err(ProxyError::Family),
        _ => Err(ProxyError::Malformed),
    }
}

#[cfg(test)]
mod tests;
