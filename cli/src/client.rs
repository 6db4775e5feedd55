//! The HTTP API as this program uses it. Refuses redirects (they would carry the token
//! elsewhere) and turns every refusal into its problem.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Problem};
use crate::events::Events;

/// Where the backend is and who asks.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// The backend's API.
    #[arg(long, global = true, env = "VIWORKS_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// A bearer token. Other users of this machine can read it from the command line:
    /// prefer --token-file.
    #[arg(long, global = true, env = "VIWORKS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds a bearer token; --token goes before it.
    #[arg(long, global = true, env = "VIWORKS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The authorities that sign the backend's certificate, PEM; the public ones if absent.
    #[arg(long, global = true, env = "VIWORKS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Bytes of one answer.
const MAX_ANSWER: u64 = 256 << 20;
/// Items of one page.
const PAGE: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

/// A query's parameters.
pub type Query<'a> = &'a [(&'a str, String)];

impl Client {
    /// # Errors
    /// When the URL is none, or the token can't be read.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let base = connection.url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(Error::Usage(format!("--url {base}: begins with neither http:// nor https://")));
        }
        let token = match (&connection.token, &connection.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(std::fs::read_to_string(path).map_err(Error::file("read the token", path))?),
            (None, None) => None,
        };
        let token = token.map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|t| t.is_empty() || !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::Usage("the token is empty or not one word".into()));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            // The API itself waits at most 60 s.
            .timeout_recv_response(Some(Duration::from_secs(90)))
            .tls_config(tls(connection.ca.as_deref())?)
            .user_agent(concat!("viworks/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, base, authorization: token.map(|token| format!("Bearer {token}")) })
    }

    /// # Errors
    /// The backend's refusal, or that there is none.
    pub fn get(&self, path: &str, query: Query<'_>) -> Result<Value, Error> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().map(|(k, v)| (*k, v.as_str())));
        self.answer(path, self.authorize(request).call())
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.answer(path, self.authorize(self.agent.post(self.url(path))).send_json(body))
    }

    /// Post bytes as they are.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post_bytes(&self, path: &str, bytes: Vec<u8>) -> Result<Value, Error> {
        let request = self.authorize(self.agent.post(self.url(path))).content_type("application/octet-stream");
        self.answer(path, request.send(&bytes[..]))
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn delete(&self, path: &str) -> Result<Value, Error> {
        self.answer(path, self.authorize(self.agent.delete(self.url(path))).call())
    }

    /// Up to `limit` items of a list, as `{"items": […], "next": …}`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn list(&self, path: &str, query: Query<'_>, limit: usize) -> Result<Value, Error> {
        self.list_after(path, query, limit, None)
    }

    /// As [`Self::list`], from a cursor on.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn list_after(
        &self,
        path: &str,
        query: Query<'_>,
        limit: usize,
        mut after: Option<String>,
    ) -> Result<Value, Error> {
        let mut items = Vec::new();
        loop {
            let mut page = query.to_vec();
            page.push(("limit", PAGE.min(limit - items.len()).to_string()));
            page.extend(after.take().map(|cursor| ("after", cursor)));
            let mut answer = self.get(path, &page)?;
            match answer["items"].take() {
                Value::Array(more) => items.extend(more),
                _ => return Err(self.odd(path, "a list without items")),
            }
            match answer["next"].take() {
                Value::String(cursor) if items.len() < limit => after = Some(cursor),
                next => return Ok(serde_json::json!({ "items": items, "next": next })),
            }
        }
    }

    /// The event stream at `path`, from after the event `last`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn events(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Events<BufReader<impl Read + Send + 'static>>, Error> {
        let mut request = self.authorize(self.agent.get(self.url(path))).header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = self.reached(request.call())?;
        if !response.status().is_success() {
            return Err(self.refused(path, response));
        }
        Ok(Events::new(BufReader::new(response.into_body().into_reader())))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn authorize<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    fn reached<T>(&self, result: Result<T, ureq::Error>) -> Result<T, Error> {
        result.map_err(|source| Error::Unreachable { url: self.base.clone(), source: Box::new(source) })
    }

    fn answer(&self, path: &str, result: Result<Response, ureq::Error>) -> Result<Value, Error> {
        let mut response = self.reached(result)?;
        if !response.status().is_success() {
            return Err(self.refused(path, response));
        }
        let bytes = self.reached(response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec())?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| self.odd(path, &e.to_string()))
    }

    fn refused(&self, path: &str, mut response: Response) -> Error {
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(1 << 20).read_to_vec().unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if !problem.code.is_empty() => {
                Error::Problem(Box::new(Problem { status: status.as_u16(), retry_after, ..problem }))
            }
            _ => self.odd(path, &format!("status {status} without a problem")),
        }
    }

    fn odd(&self, path: &str, what: &str) -> Error {
        Error::Answer { url: self.url(path), what: what.to_owned() }
    }
}

/// Who may speak for the backend.
fn tls(ca: Option<&Path>) -> Result<TlsConfig, Error> {
    let Some(path) = ca else { return Ok(TlsConfig::default()) };
    let pem = std::fs::read(path).map_err(Error::file("read the authorities", path))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(Error::Usage(format!("--ca {}: {e}", path.display()))),
        }
    }
    if roots.is_empty() {
        return Err(Error::Usage(format!("--ca {}: no certificate is in it", path.display())));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build())
}

type Response = ureq::http::Response<ureq::Body>;
