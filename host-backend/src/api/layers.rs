//! What surrounds every request: an id, a span, the bounds on how many and how long, a
//! problem instead of a panic, headers, and the count. Refuses work beyond the bound.

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Shared;
use super::problem::{Code, Problem};
use crate::authz::Reason;
use crate::spans::Open;

/// Requests in handlers at once; those that wait for results count.
pub const MAX_REQUESTS: usize = 2_048;

/// The longest that a handler may take: the longest wait that a client may ask for, a body
/// that arrives slowly, and slack.
pub const HANDLED_WITHIN: Duration = Duration::from_secs(90);

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// On every response.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

pub async fn around(State(api): State<Shared>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let trace = trace(&api, &request, route);
    let trace_id = trace.as_ref().map(|trace| trace.context().trace_id());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route, trace_id);
    if let Some(trace) = &trace {
        request.extensions_mut().insert(trace.clone());
    }

    let mut response = bounded(&api, began, request, next).instrument(span.clone()).await;

    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    headers.insert(REQUEST_ID.clone(), id);
    let took = began.elapsed();
    let status = response.status().as_u16();
    api.http.answered(&method, route, &response, took);
    if let Some(trace) = trace {
        let failed = status >= 500;
        trace.with("http.response.status_code", status.to_string()).failed(failed).end();
    }
    span.in_scope(|| tracing::debug!(status, micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "answered"));
    response
}

/// The span of a request that is traced; what is asked every few seconds is none.
fn trace(api: &Shared, request: &Request, route: &str) -> Option<Open> {
    if route.starts_with("/health") || route == "/metrics" {
        return None;
    }
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let method = request.method().as_str();
    let open = api.app.tracer.request(parent, || format!("{method} {route}"))?;
    Some(open.with("http.request.method", method).with("http.route", route))
}

async fn bounded(api: &Shared, began: Instant, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if let Some(address) = address
        && let Err(wait) = api.edge.addresses.take(address, began)
    {
        api.guard.refusals().get_or_create(&Reason { reason: "address" }).inc();
        let secs = u32::try_from(wait.as_secs()).unwrap_or(60).saturating_add(1);
        return Problem::busy("the address makes more requests than it may", secs).into_response();
    }
    let Ok(_permit) = api.requests.try_acquire() else {
        return Problem::busy("the backend answers as many requests as it may", 1).into_response();
    };
    match tokio::time::timeout(HANDLED_WITHIN, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            // The panic hook has written what and where.
            tracing::error!("a handler panicked");
            Problem::new(Code::Internal, "the backend's log has the cause under this request's id").into_response()
        }
        Err(_) => Problem::busy("the request took too long", 5).into_response(),
    }
}

/// The client's own id if it is a plain one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    if let Some(id) = headers.get(&REQUEST_ID)
        && (1..=64).contains(&id.len())
        && id.as_bytes().iter().all(plain)
    {
        return id.clone();
    }
    let mut bytes = [0; 8];
    // Without randomness the id is only less useful.
    let _ = getrandom::fill(&mut bytes);
    HeaderValue::try_from(hex::encode(bytes)).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        let ask = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_str(text).unwrap());
            request_id(&headers)
        };
        assert_eq!(ask("job-7.a_b"), "job-7.a_b");
        for bad in ["", "a b", "\"x\"", &"x".repeat(65)] {
            let id = ask(bad);
            assert!(id.len() == 16 && id != bad, "{bad:?}");
        }
    }
}
