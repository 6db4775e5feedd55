//! `X-Forwarded-For`: of whom a trusted HTTP proxy speaks. From anybody else it is not read.

use hyper::HeaderMap;
use std::net::{IpAddr, SocketAddr};

use super::Nets;

const NAME: &str = "x-forwarded-for";
/// Proxies in a row; more is nobody's site.
const MAX: usize = 16;

/// Who asks: `peer`, or where that is a trusted proxy the last address in its list that is
/// none. A list that can't be read leaves the proxy itself.
#[must_use]
pub fn client(headers: &HeaderMap, peer: SocketAddr, trusted: &Nets) -> SocketAddr {
    if !trusted.contains(peer.ip()) {
        return peer;
    }
    // Lines of one header are one list, the first line first.
    let lines: Vec<_> = headers.get_all(NAME).iter().rev().take(MAX).collect();
    let words = lines.into_iter().flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).take(MAX);
    for word in words {
        let Some(address) = address(word.trim()) else { return peer };
        if !trusted.contains(address) {
            return SocketAddr::new(address, 0);
        }
    }
    peer
}

/// An address, with or without a port.
fn address(word: &str) -> Option<IpAddr> {
    let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
    let address = bare.parse().or_else(|_| word.parse::<SocketAddr>().map(|a| a.ip()));
    address.ok().map(|a: IpAddr| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, line.parse().unwrap());
        }
        let trusted = Nets::parse(["192.0.2.0/28", "::1"]).unwrap();
        client(&headers, peer.parse().unwrap(), &trusted).ip().to_string()
    }

    #[test]
    fn a_trusted_proxys_word_counts_and_nobody_elses() {
        assert_eq!(ask("192.0.2.1:9", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(ask("192.0.2.1:9", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(ask("198.51.100.1:9", &["203.0.113.7"]), "198.51.100.1");
        assert_eq!(ask("192.0.2.1:9", &[]), "192.0.2.1");
    }

    #[test]
    fn what_the_client_wrote_itself_stands_before_and_is_passed_over() {
        assert_eq!(ask("192.0.2.1:9", &["10.0.0.1, 203.0.113.7, 192.0.2.2"]), "203.0.113.7");
        assert_eq!(ask("192.0.2.1:9", &["10.0.0.1", "203.0.113.7:4711"]), "203.0.113.7");
        assert_eq!(ask("192.0.2.1:9", &["10.0.0.1, nonsense"]), "192.0.2.1", "no guessing");
        assert_eq!(ask("192.0.2.1:9", &["192.0.2.3, 192.0.2.2"]), "192.0.2.1");
        let many = "192.0.2.2,".repeat(100);
        assert_eq!(ask("192.0.2.1:9", &[&format!("203.0.113.7,{many}192.0.2.2")]), "192.0.2.1");
    }
}
