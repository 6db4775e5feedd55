//! A client of the backend's API, as plain as curl: status and JSON.

use std::io::{Error, Result};
use std::time::Duration;

use serde_json::Value;

/// One token's view of one backend.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// An answer: status, content type and body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Api {
    #[must_use]
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(90)))
            .build();
        Self { url: url.to_owned(), token: token.map(str::to_owned), agent: config.into() }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same backend with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// # Errors
    /// When no HTTP answer comes.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, None)
    }

    /// # Errors
    /// When no HTTP answer comes.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("POST", path, Some(("application/json", body.to_string().into_bytes())))
    }

    /// # Errors
    /// When no HTTP answer comes.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send("DELETE", path, None)
    }

    /// Any request, with any bytes.
    ///
    /// # Errors
    /// When no HTTP answer comes.
    pub fn send(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Answer> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = match body {
            Some((kind, bytes)) => {
                self.agent.run(request.header("Content-Type", kind).body(bytes).map_err(Error::other)?)
            }
            None => self.agent.run(request.body(()).map_err(Error::other)?),
        };
        let mut response = response.map_err(Error::other)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(Error::other)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, content_type, retry_after, body })
    }
}

impl Answer {
    /// The body, if the status is this.
    ///
    /// # Errors
    /// With the whole answer otherwise.
    pub fn expect_status(self, status: u16) -> Result<Value> {
        if self.status == status { Ok(self.body) } else { Err(Error::other(format!("wanted {status}, got {self:?}"))) }
    }

    /// The problem's code, if this is a problem with this status.
    ///
    /// # Errors
    /// With the whole answer otherwise.
    pub fn problem(self, status: u16) -> Result<String> {
        if self.status == status
            && self.content_type.starts_with("application/problem+json")
            && let Some(code) = self.body["code"].as_str()
        {
            return Ok(code.to_owned());
        }
        Err(Error::other(format!("wanted a problem with {status}, got {self:?}")))
    }
}
