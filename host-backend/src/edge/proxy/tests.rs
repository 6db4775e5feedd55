//! Headers that are right, wrong, cut short, too long and slow; and any bytes at all.

use super::*;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&V2_MAGIC[..], &[command, family], &length, body].concat()
}

fn v4_body(from: [u8; 4], port: u16) -> Vec<u8> {
    [&from[..], &[192, 0, 2, 9], &port.to_be_bytes(), &8081u16.to_be_bytes()].concat()
}

/// Parse as a connection is read: never more at once than was asked for.
fn fed(bytes: &[u8]) -> Result<(Source, usize), ProxyError> {
    let mut read = 0;
    loop {
        match parse(&bytes[..read])? {
            Parsed::Whole(source, length) => {
                assert_eq!(length, read, "not a byte beyond the header was read");
                return Ok((source, length));
            }
            Parsed::More(more) => {
                assert!(more > 0);
                read += more;
                assert!(read <= V2_HEAD + V2_MAX);
                if read > bytes.len() {
                    return Err(ProxyError::Closed);
                }
            }
        }
    }
}

#[test]
fn both_versions_name_the_peer() {
    let of = |text: &str| Source::Of(text.parse().unwrap());
    for (line, wanted) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\n", of("203.0.113.7:50000")),
        ("PROXY TCP6 2001:db8::7 2001:db8::9 50000 8081\r\n", of("[2001:db8::7]:50000")),
        ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", of("203.0.113.7:1")),
        ("PROXY UNKNOWN\r\n", Source::Own),
        ("PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n", Source::Own),
    ] {
        let whole = format!("{line}\x16\x03\x01");
        assert_eq!(fed(whole.as_bytes()), Ok((wanted, line.len())), "{line}");
    }
    let four = v2_header(0x21, 0x11, &v4_body([203, 0, 113, 7], 50_000));
    assert_eq!(fed(&four), Ok((of("203.0.113.7:50000"), four.len())));
    let six = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 16], &50_000u16.to_be_bytes(), &[0, 1]].concat();
    let six = v2_header(0x21, 0x21, &[&six[..], b"\x03\x00\x04crc!"].concat());
    assert_eq!(fed(&six), Ok((of("[2001:db8::7]:50000"), six.len())), "what is added is passed over");
    for own in [v2_header(0x20, 0x11, &v4_body([203, 0, 113, 7], 1)), v2_header(0x20, 0, b""), v2_header(0x21, 0, b"")]
    {
        assert_eq!(fed(&own), Ok((Source::Own, own.len())));
    }
}

#[test]
fn anything_else_is_refused() {
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaa";
    assert_eq!(fed(tls), Err(ProxyError::Missing));
    assert_eq!(fed(b"GET /health HTTP/1.1\r\n\r\n"), Err(ProxyError::Missing));
    for bad in [
        "PROXY TCP4 203.0.113.7 192.0.2.9 50000\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081 9\r\n",
        "PROXY TCP4  203.0.113.7 192.0.2.9 50000 8081\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.9 70000 8081\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.9 +5000 8081\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.9 050 8081\r\n",
        "PROXY TCP4 2001:db8::7 192.0.2.9 50000 8081\r\n",
        "PROXY TCP4 203.0.113.7 example.com 50000 8081\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.9 50000 8081\r\n",
        "PROXY UDP4 203.0.113.7 192.0.2.9 50000 8081\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\n\n",
        "PROXY UNKNOWNS\r\n",
    ] {
        assert_eq!(fed(bad.as_bytes()), Err(ProxyError::Malformed), "{bad}");
    }
    assert_eq!(fed(format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).as_bytes()), Err(ProxyError::TooLong));
    assert_eq!(fed(&v2_header(0x21, 0x11, &[0; V2_MAX + 1])), Err(ProxyError::TooLong));
    assert_eq!(fed(&v2_header(0x11, 0x11, &v4_body([1, 1, 1, 1], 1))), Err(ProxyError::Malformed), "its version");
    assert_eq!(fed(&v2_header(0x22, 0x11, &v4_body([1, 1, 1, 1], 1))), Err(ProxyError::Malformed), "its command");
    assert_eq!(fed(&v2_header(0x21, 0x11, &[1; 11])), Err(ProxyError::Malformed), "too short for addresses");
    assert_eq!(fed(&v2_header(0x21, 0x21, &[1; 35])), Err(ProxyError::Malformed));
    for family in [0x12, 0x22, 0x31, 0x32] {
        assert_eq!(fed(&v2_header(0x21, family, &[0; 216])), Err(ProxyError::Family));
    }
}

proptest! {
    #[test]
    fn a_written_header_is_read_as_it_was_meant(ip: [u8; 4], port: u16, tail: Vec<u8>, binary: bool) {
        let from = SocketAddr::from((ip, port));
        let header = if binary {
            v2_header(0x21, 0x11, &v4_body(ip, port))
        } else {
            format!("PROXY TCP4 {} 192.0.2.9 {port} 8081\r\n", from.ip()).into_bytes()
        };
        let whole = [&header[..], &tail].concat();
        prop_assert_eq!(fed(&whole), Ok((Source::Of(from), header.len())));
        // Cut short anywhere, it is never taken for whole.
        for at in 0..header.len() {
            prop_assert_eq!(fed(&header[..at]), Err(ProxyError::Closed));
        }
    }

    #[test]
    fn any_bytes_end_within_bounds(bytes: Vec<u8>, magic in 0..3usize) {
        let begin: &[u8] = [&b""[..], b"PROXY ", &V2_MAGIC][magic];
        let _ = fed(&[begin, &bytes[..]].concat());
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn what_follows_a_header_stays_in_the_socket() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.9 50000 8081\r\nrest").await.unwrap();
    assert_eq!(read(&mut server).await, Ok(Source::Of("203.0.113.7:50000".parse().unwrap())));
    let mut rest = [0; 4];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"rest");
}

#[tokio::test(start_paused = true)]
async fn a_slow_or_cut_header_is_given_up() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"PROXY TCP4 203.0").await.unwrap();
    assert_eq!(read(&mut server).await, Err(ProxyError::Slow));
    let (mut client, mut server) = pair().await;
    client.write_all(b"PROXY TCP4 203.0").await.unwrap();
    drop(client);
    assert_eq!(take(&mut server).await, Err(ProxyError::Closed));
    let (client, mut server) = pair().await;
    drop(client);
    assert_eq!(take(&mut server).await, Err(ProxyError::Missing));
}
