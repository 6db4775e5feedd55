//! The agents' port's HTTP: `/health` for anybody, `/ws/agent` for who is an agent. What a
//! proxy passed on counts on the proxies' own listener alone; elsewhere it is an attack.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::port::{Entrance, Port};
use super::{Identity, IdentityError, lock};
use crate::edge::certificate::{self, PassedError};
use crate::edge::{addresses, forwarded};
use crate::metrics::Metrics;

/// After which a gateway that is not taken for want of room asks again; its own jitter comes on top.
const FULL_RETRY_SECS: u32 = 30;

/// One connection, as its request is answered.
#[derive(Debug)]
pub(super) struct Caller {
    pub peer: SocketAddr,
    pub entrance: Entrance,
    /// What TLS says here; proxies are asked instead on their own listener.
    pub identity: Result<Identity, IdentityError>,
}

/// The upgrade that a request asked for, and who gets it.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub on: OnUpgrade,
    pub admitted: Option<Admitted>,
}

#[derive(Debug)]
pub(super) struct Admitted {
    pub identity: Identity,
    pub peer: SocketAddr,
    /// Among the address's, where it was not known before the request.
    pub place: Option<addresses::Place>,
}

type Answer = Response<Full<Bytes>>;

impl Port {
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
        upgrade: &Mutex<Option<Upgrade>>,
    ) -> Answer {
        if request.headers().contains_key(UPGRADE) {
            *lock(upgrade) = Some(Upgrade { on: hyper::upgrade::on(&mut request), admitted: None });
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/health") => json(StatusCode::OK, r#"{"status":"healthy"}"#),
            (&Method::GET, "/health/live") => json(StatusCode::OK, r#"{"status":"alive"}"#),
            (&Method::GET, "/health/ready") if self.ready.reasons().await.is_empty() => {
                json(StatusCode::OK, r#"{"status":"ready"}"#)
            }
            // Why not is said on the API's port: strangers ask here.
            (&Method::GET, "/health/ready") => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"not_ready"}"#),
            (&Method::GET, viworks_protocol::PATH) => match self.admitted(&request, caller).await {
                Ok((admitted, key)) => {
                    if let Some(upgrade) = &mut *lock(upgrade) {
                        upgrade.admitted = Some(admitted);
                    }
                    switching(key)
                }
                Err(refusal) => *refusal,
            },
            _ => json(StatusCode::NOT_FOUND, r#"{"error":"there is no such resource"}"#),
        }
    }

    /// Whether a request for a session gets one.
    async fn admitted(
        &self,
        request: &Request<Incoming>,
        caller: &Caller,
    ) -> Result<(Admitted, HeaderValue), Box<Answer>> {
        let (identity, peer, place) = match caller.entrance {
            Entrance::Direct => (self.own(request, caller).await?, caller.peer, None),
            Entrance::Proxies => {
                let peer = forwarded::client(request.headers(), caller.peer, &self.edge.trusted);
                let place = self.edge.admission.of_address(peer.ip()).map_err(|full| {
                    Metrics::count(&self.metrics.refusals, full.rule());
                    busy(full.retry_after_secs())
                })?;
                (self.passed(request, peer).await?, peer, Some(place))
            }
        };
        let Some(key) = websocket_key(request) else {
            let told = r#"{"error":"not a WebSocket handshake (RFC 6455)"}"#;
            return Err(Box::new(json(StatusCode::BAD_REQUEST, told)));
        };
        if self.hub.connected() >= self.edge.max_sessions {
            Metrics::count(&self.metrics.refusals, "sessions");
            tracing::warn!(agent = %identity.agent, rule = "sessions", "refused: as many sessions as there may be");
            return Err(busy(FULL_RETRY_SECS));
        }
        Ok((Admitted { identity, peer, place }, key))
    }

    /// Who TLS says it is. A certificate in a header is somebody's claim to be another.
    async fn own(&self, request: &Request<Incoming>, caller: &Caller) -> Result<Identity, Box<Answer>> {
        if let Some(name) = &self.edge.client_cert_header
            && request.headers().contains_key(name)
        {
            let detail = format!("{name} from a peer that is no proxy");
            match &caller.identity {
                Ok(identity) => self.refuse(identity, "passed-certificate", &detail).await,
                Err(_) => self.stranger(caller.peer, "passed-certificate", &detail).await,
            }
            return Err(forbidden());
        }
        match &caller.identity {
            Ok(identity) => Ok(identity.clone()),
            Err(error) => {
                self.stranger(caller.peer, "identity", &error.to_string()).await;
                Err(forbidden())
            }
        }
    }

    /// Who the certificate is that the proxy passed on, if it is good.
    async fn passed(&self, request: &Request<Incoming>, peer: SocketAddr) -> Result<Identity, Box<Answer>> {
        let found = match &self.edge.client_cert_header {
            Some(name) => certificate::passed(request.headers(), name).map_err(IdentityError::Passed),
            None => Err(IdentityError::Passed(PassedError::Missing)),
        };
        let judged = found.and_then(|der| {
            self.tls.verify_client(&der).map_err(IdentityError::Unverified)?;
            Identity::from_der(&der)
        });
        match judged {
            Ok(identity) => Ok(identity),
            Err(error) => {
                let detail = match &error {
                    IdentityError::Passed(source) => format!("{error}: {source}"),
                    IdentityError::Unverified(source) => format!("{error}: {source}"),
                    other => other.to_string(),
                };
                self.stranger(peer, "passed-certificate", &detail).await;
                Err(forbidden())
            }
        }
    }
}

fn forbidden() -> Box<Answer> {
    Box::new(json(StatusCode::FORBIDDEN, r#"{"error":"a client certificate that names an agent is wanted"}"#))
}

fn busy(secs: u32) -> Box<Answer> {
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"no room now"}"#);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
    Box::new(response)
}

fn switching(key: HeaderValue) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    response
}

fn json(status: StatusCode, body: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // One request a connection: places are few.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a WebSocket handshake's key, if it is such a handshake.
fn websocket_key(request: &Request<Incoming>) -> Option<HeaderValue> {
    let has = |name, wanted: &str| {
        request
            .headers()
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    };
    let whole = has(CONNECTION, "upgrade") && has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| whole)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
