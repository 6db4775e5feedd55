//! `viworks plugins push`: a signed bundle into an OCI registry, the component as `wkg`
//! writes it, its statements as an artifact that refers to it. Speaks as much of the
//! distribution protocol as that needs, over this program's own HTTP.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use viworks_signing::oci;

use super::publish::beside;
use crate::error::{Error, Exit};
use crate::output::Out;

/// Put a signed bundle into an OCI registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  viworks plugins push dist/accounts.wasm oci://registry.example.com/plugins/accounts:1.4.2 \\
    --username ci --password-file /run/secrets/registry")]
pub struct Args {
    /// The component, as `viworks-sign sign` wrote it.
    file: PathBuf,
    /// oci://HOST/NAME:TAG
    reference: String,
    /// The signed statements, where they are not beside it.
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// A file that holds the password or token.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Speak HTTP, for a registry on this machine.
    #[arg(long)]
    plain_http: bool,
}

struct Registry {
    agent: ureq::Agent,
    /// `https://HOST/v2/NAME`
    base: String,
    host: String,
    basic: Option<String>,
    authorization: Option<String>,
}

struct Reply {
    status: u16,
    location: Option<String>,
    challenge: Option<String>,
    body: Vec<u8>,
}

impl Args {
    /// # Errors
    /// When a file can't be read, or the registry refuses.
    pub fn run(self, out: &Out) -> Result<Exit, Error> {
        let statements = self.statements.clone().unwrap_or_else(|| beside(&self.file));
        let component = std::fs::read(&self.file).map_err(Error::file("read the component", &self.file))?;
        let lines = std::fs::read(&statements).map_err(Error::file("read the statements", &statements))?;
        let (host, name, tag) = split(&self.reference)
            .ok_or_else(|| Error::Usage(format!("{} is not oci://HOST/NAME:TAG", self.reference)))?;
        let mut registry = self.registry(host, name)?;

        registry.blob(&component)?;
        registry.blob(&oci::component_config(&component))?;
        let manifest = oci::component_manifest(&component);
        registry.manifest(tag, oci::MANIFEST, &manifest)?;

        registry.blob(&lines)?;
        registry.blob(oci::EMPTY_CONFIG)?;
        let bundle = oci::bundle_manifest(&lines, &manifest);
        registry.manifest(&oci::digest(&bundle), oci::MANIFEST, &bundle)?;
        registry.refer(&manifest, &bundle)?;
        let digest = oci::digest(&manifest);
        out.show(&json!({ "reference": self.reference, "digest": digest }), |_| {
            format!("{} is pushed, {digest}\n", self.reference)
        })?;
        Ok(Exit::Succeeded)
    }

    fn registry(&self, host: &str, name: &str) -> Result<Registry, Error> {
        let basic = match (&self.username, &self.password_file) {
            (Some(user), Some(file)) => {
                let password = std::fs::read_to_string(file).map_err(Error::file("read the password", file))?;
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.trim()))))
            }
            _ => None,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        let scheme = if self.plain_http { "http" } else { "https" };
        let (base, host) = (format!("{scheme}://{host}/v2/{name}"), format!("{scheme}://{host}"));
        Ok(Registry { agent, base, host, authorization: basic.clone(), basic })
    }
}

/// Host, name and tag of `oci://HOST/NAME:TAG`.
fn split(reference: &str) -> Option<(&str, &str, &str)> {
    let (host, rest) = reference.strip_prefix("oci://")?.split_once('/')?;
    let (name, tag) = rest.rsplit_once(':')?;
    let plain = |text: &str, also: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    (plain(host, b".-:[]") && plain(name, b"._-/") && plain(tag, b"._-")).then_some((host, name, tag))
}

impl Registry {
    /// Upload a blob, unless it is there.
    fn blob(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let digest = oci::digest(bytes);
        if self.send("HEAD", &format!("{}/blobs/{digest}", self.base), None)?.status == 200 {
            return Ok(());
        }
        let begun =
            self.send("POST", &format!("{}/blobs/uploads/", self.base), Some(("application/octet-stream", b"")))?;
        let location =
            begun.location.filter(|_| begun.status == 202).ok_or_else(|| self.odd("upload", begun.status))?;
        let location = if location.starts_with('/') { format!("{}{location}", self.host) } else { location };
        let joint = if location.contains('?') { '&' } else { '?' };
        let put =
            self.send("PUT", &format!("{location}{joint}digest={digest}"), Some(("application/octet-stream", bytes)))?;
        if put.status == 201 { Ok(()) } else { Err(self.odd("blob", put.status)) }
    }

    fn manifest(&mut self, reference: &str, kind: &str, bytes: &[u8]) -> Result<(), Error> {
        let put = self.send("PUT", &format!("{}/manifests/{reference}", self.base), Some((kind, bytes)))?;
        if put.status == 201 { Ok(()) } else { Err(self.odd("manifest", put.status)) }
    }

    /// A registry with the referrers API finds the statements by their subject; one without
    /// is given a list under the fallback tag.
    fn refer(&mut self, manifest: &[u8], bundle: &[u8]) -> Result<(), Error> {
        let url = format!("{}/referrers/{}", self.base, oci::digest(manifest));
        if self.send("GET", &url, None)?.status == 200 {
            return Ok(());
        }
        let tag = oci::fallback_tag(manifest);
        let before = self.send("GET", &format!("{}/manifests/{tag}", self.base), None)?;
        let before: Option<Value> = if before.status == 200 { serde_json::from_slice(&before.body).ok() } else { None };
        self.manifest(&tag, oci::INDEX, &oci::fallback_index(before.as_ref(), bundle))
    }

    fn send(&mut self, method: &str, url: &str, body: Option<(&str, &[u8])>) -> Result<Reply, Error> {
        // An upload may be sent elsewhere; whom that belongs to, no password is for.
        let own = url.starts_with(&format!("{}/", self.host));
        let reply = self.once(method, url, body, self.authorization.as_deref().filter(|_| own))?;
        // A token is asked for as the registry says, then the request is made again.
        match reply.challenge.as_deref().filter(|_| reply.status == 401).and_then(token_url) {
            None => Ok(reply),
            Some(realm) => {
                let answer = self.once("GET", &realm, None, self.basic.as_deref())?;
                let token: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let token = token["token"].as_str().or(token["access_token"].as_str());
                let token = token.ok_or_else(|| self.odd("token", answer.status))?;
                self.authorization = Some(format!("Bearer {token}"));
                self.once(method, url, body, self.authorization.as_deref().filter(|_| own))
            }
        }
    }

    fn once(
        &self,
        method: &str,
        url: &str,
        body: Option<(&str, &[u8])>,
        authorization: Option<&str>,
    ) -> Result<Reply, Error> {
        let unreachable = |source| Error::Unreachable { url: url.to_owned(), source: Box::new(source) };
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        request = request.header("Accept", format!("{}, {}, application/json", oci::MANIFEST, oci::INDEX));
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let response = match body {
            Some((kind, bytes)) => {
                let request = request.header("Content-Type", kind).body(bytes.to_vec());
                self.agent.run(request.map_err(|e| unreachable(e.into()))?)
            }
            None => self.agent.run(request.body(()).map_err(|e| unreachable(e.into()))?),
        };
        let mut response = response.map_err(unreachable)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (location, challenge) = (header("location"), header("www-authenticate"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(1 << 20).read_to_vec().unwrap_or_default();
        Ok(Reply { status, location, challenge, body })
    }

    fn odd(&self, what: &str, status: u16) -> Error {
        Error::Usage(format!("the registry at {} refused the {what}, with status {status}", self.host))
    }
}

/// Where a bearer token is had, by a registry's challenge.
fn token_url(challenge: &str) -> Option<String> {
    let fields = challenge.strip_prefix("Bearer ")?;
    let field = |name: &str| {
        let start = fields.find(&format!("{name}=\""))? + name.len() + 2;
        Some(&fields[start..start + fields[start..].find('"')?])
    };
    let encode = |text: &str| text.replace('%', "%25").replace(' ', "%20").replace('&', "%26").replace('+', "%2B");
    let mut url = field("realm")?.to_owned();
    for (n, name) in ["service", "scope"].into_iter().enumerate() {
        if let Some(value) = field(name) {
            url.push_str(&format!("{}{name}={}", if n == 0 { '?' } else { '&' }, encode(value)));
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_and_refused() {
        assert_eq!(split("oci://127.0.0.1:5000/a/b:1.0.0"), Some(("127.0.0.1:5000", "a/b", "1.0.0")));
        for bad in
            ["a/b:1", "oci://host", "oci://host/name", "oci://host/na me:1", "oci://host/name:", "oci://ho?st/a:1"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let challenge =
            r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(
            token_url(challenge).as_deref(),
            Some("https://auth.example.com/token?service=registry&scope=repository:a/b:pull,push")
        );
        assert_eq!(token_url("Basic realm=\"x\""), None);
    }
}
