//! Where Redis is. Its password is never shown. Refuses what is not Redis, and TLS, which
//! this program does not speak to it.

use redis::Client;
use serde::Deserialize;

/// `redis://[USER:PASSWORD@]HOST[:PORT][/N]` or `unix:///PATH`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("is not redis://HOST:PORT or unix:///PATH")]
    Form,
    #[error("rediss:// is not spoken: reach Redis over a private network, a socket, or a tunnel of your own")]
    Tls,
}

impl RedisUrl {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// # Errors
    /// When it is no such URL.
    pub fn client(&self) -> Result<Client, UrlError> {
        match self.0.split_once("://").map(|(scheme, _)| scheme) {
            Some("rediss") => Err(UrlError::Tls),
            Some("redis" | "unix" | "redis+unix") => Client::open(self.0.as_str()).map_err(|_| UrlError::Form),
            _ => Err(UrlError::Form),
        }
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.client() {
            Ok(client) => write!(f, "RedisUrl({})", client.get_connection_info().addr()),
            Err(error) => write!(f, "RedisUrl({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown_and_tls_is_refused() {
        let url = RedisUrl::new("redis://viworks:s3cret@redis.example.com:6380/2");
        let shown = format!("{url:?}");
        assert!(shown.contains("redis.example.com") && !shown.contains("s3cret"), "{shown}");
        assert!(RedisUrl::new("unix:///run/redis/redis.sock").client().is_ok());
        assert_eq!(RedisUrl::new("rediss://redis.example.com").client().err(), Some(UrlError::Tls));
        for bad in ["", "redis", "http://redis.example.com", "redis://"] {
            assert_eq!(RedisUrl::new(bad).client().err(), Some(UrlError::Form), "{bad}");
        }
    }
}
