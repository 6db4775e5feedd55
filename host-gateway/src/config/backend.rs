//! Where the backend is and which key proves it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio_tungstenite::tungstenite::http::Uri;

use super::fault::Faults;

/// The backend's address, always `wss://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl {
    pub host: String,
    pub port: u16,
    pub path: String,
    /// Other instances of the same backend, of which any will do.
    pub others: Vec<BackendUrl>,
}

/// Instances that one gateway may be told of.
const MOST: usize = 16;

/// SHA-256 of a SubjectPublicKeyInfo, as in RFC 7469.
pub type Pin = [u8; 32];

impl BackendUrl {
    /// One address, or several separated by commas: instances of one backend.
    pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Self> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > MOST {
            faults.add("backend_url", text, "names more than 16 instances", "name a few; any of them will do");
            return None;
        }
        let mut urls = Vec::new();
        for part in parts {
            let url = Self::parse_one(part, faults)?;
            if urls.contains(&url) {
                faults.add("backend_url", text, "names an instance twice", "name each instance once");
                return None;
            }
            urls.push(url);
        }
        let mut urls = urls.into_iter();
        let first = urls.next()?;
        Some(Self { others: urls.collect(), ..first })
    }

    fn parse_one(text: &str, faults: &mut Faults) -> Option<Self> {
        let mut fault = |problem: &str| {
            let mend = "write wss://HOST:PORT, for example wss://viworks.example.com:8081";
            faults.add("backend_url", text, problem, mend);
            None
        };
        if !text.starts_with("wss://") {
            return fault("does not begin with wss://");
        }
        let Ok(uri) = text.parse::<Uri>() else { return fault("is not a URL") };
        let Some(authority) = uri.authority().filter(|a| !a.host().is_empty()) else { return fault("names no host") };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return fault("holds a user or a query, which mean nothing here");
        }
        if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) {
            return fault("has no port from 1 to 65535");
        }
        let path = if uri.path().len() > 1 { uri.path() } else { viworks_protocol::PATH };
        Some(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            path: path.to_owned(),
            others: Vec::new(),
        })
    }

    /// For the handshake's request line and `Host`.
    #[must_use]
    pub fn uri(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("wss://{host}:{}{}", self.port, self.path)
    }
}

/// `sha256/BASE64`, several separated by commas, so that a key can be changed without a gap.
pub(super) fn parse_pins(text: &str, faults: &mut Faults) -> Vec<Pin> {
    let mut pins = Vec::new();
    for part in text.split(',').map(str::trim) {
        let decoded = part.strip_prefix("sha256/").and_then(|b64| BASE64_STANDARD.decode(b64).ok());
        match decoded.and_then(|bytes| Pin::try_from(bytes).ok()) {
            Some(pin) => pins.push(pin),
            None => {
                let mend = "take it from the backend's certificate: openssl x509 -in CERT -noout -pubkey | openssl \
                            pkey -pubin -outform der | openssl dgst -sha256 -binary | base64, after sha256/";
                faults.add("backend_spki_pin", part, "is not sha256/ and the base64 of 32 bytes", mend);
            }
        }
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_wss_with_a_host() {
        let mut faults = Faults::default();
        let url = BackendUrl::parse("wss://viworks.example.com:8081", &mut faults).unwrap();
        assert_eq!(url.uri(), "wss://viworks.example.com:8081/ws/agent");
        assert_eq!(BackendUrl::parse("wss://[2001:db8::1]/x", &mut faults).unwrap().uri(), "wss://[2001:db8::1]:443/x");
        assert!(faults.is_empty(), "{faults}");
        for bad in
            ["ws://a.example.com", "https://a", "wss://", "wss://u@a.example.com", "wss://a:0", "wss://a?x=1", ""]
        {
            let mut faults = Faults::default();
            assert_eq!((BackendUrl::parse(bad, &mut faults), faults.iter().count()), (None, 1), "{bad}");
        }
    }

    #[test]
    fn several_instances_are_named_with_commas_each_once() {
        let mut faults = Faults::default();
        let url = BackendUrl::parse("wss://a.example.com, wss://b.example.com:8081", &mut faults).unwrap();
        let others: Vec<_> = url.others.iter().map(BackendUrl::uri).collect();
        assert_eq!(
            (url.host.as_str(), &others[..]),
            ("a.example.com", &["wss://b.example.com:8081/ws/agent".into()][..])
        );
        assert!(faults.is_empty(), "{faults}");
        let many = vec!["wss://a.example.com"; MOST + 1].join(",");
        for bad in ["wss://a,", "wss://a,ws://b", "wss://a, wss://a", &many] {
            let mut faults = Faults::default();
            assert_eq!((BackendUrl::parse(bad, &mut faults), faults.iter().count()), (None, 1), "{bad}");
        }
    }

    #[test]
    fn pins_are_32_bytes_each() {
        let mut faults = Faults::default();
        let good = format!("sha256/{}", BASE64_STANDARD.encode([7; 32]));
        assert_eq!(parse_pins(&format!("{good}, {good}"), &mut faults), [[7; 32]; 2]);
        assert!(faults.is_empty());
        for bad in ["", "sha256/", "sha1/AAAA", "sha256/AAAA", &good[7..]] {
            let mut faults = Faults::default();
            assert!(parse_pins(bad, &mut faults).is_empty() && faults.iter().count() == 1, "{bad}");
        }
    }
}
