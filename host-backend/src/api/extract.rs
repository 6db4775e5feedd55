//! Reading requests: JSON bodies, paths and queries, each with a problem for every way to
//! be wrong. Refuses other content types, unknown fields, slow and oversize bodies.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use hyper::body::{Frame, SizeHint};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::Shared;
use super::problem::{Code, Problem};
use crate::authz::{Action, Permit};

/// A body must have arrived within this time, whatever its size.
pub const BODY_WITHIN: Duration = Duration::from_secs(20);

/// The same for a large one.
const OCTETS_WITHIN: Duration = Duration::from_secs(60);

/// What is read and forgotten of a refused body, in bytes and time.
const DRAINED: usize = 8 * 1024 * 1024;
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A JSON body, or the defaults where there is none.
#[derive(Debug)]
pub struct MaybeJson<T>(pub T);

/// A body of plain bytes.
#[derive(Debug)]
pub struct Octets(pub Bytes);

/// The path's parameters.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The query's parameters.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request, state, BODY_WITHIN).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        read(request, state, BODY_WITHIN).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for Octets {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(axum::http::header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != "application/octet-stream") {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send the body as Content-Type: application/octet-stream",
            ));
        }
        match tokio::time::timeout(OCTETS_WITHIN, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
                Err(Problem::new(Code::BodyTooLarge, "the body is larger than this resource takes"))
            }
            Ok(Err(other)) => Err(Problem::invalid(other.body_text())),
            Err(_) => Err(Problem::invalid("the body did not arrive in time")),
        }
    }
}

async fn read<T: DeserializeOwned>(
    request: Request,
    state: &(impl Send + Sync),
    within: Duration,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let body = Rest(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(parts, Body::new(body.clone()));
    let rejection = match tokio::time::timeout(within, axum::Json::from_request(request, state)).await {
        Ok(Ok(axum::Json(read))) => return Ok(read),
        Ok(Err(rejection)) => rejection,
        Err(_) => {
            return Err(Problem::invalid(format!("the body did not arrive within {} seconds", within.as_secs())));
        }
    };
    // Slower or longer ones may lose their answer.
    let _ = tokio::time::timeout(DRAIN_WITHIN, body.drain()).await;
    Err(rejection.into())
}

/// A body of which the unread rest can still be taken after a refusal. A connection that
/// is closed over unread bytes is reset, and its client never sees why it was refused.
#[derive(Clone)]
struct Rest(Arc<Mutex<Body>>);

impl Rest {
    /// Read and forget, at most [`DRAINED`] bytes.
    async fn drain(mut self) {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// The first argument of every handler but the open ones: without a permit nothing else
/// of the request is read.
impl<A: Action> FromRequestParts<Shared> for Permit<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let subject = format!("{} {}", parts.method, parts.uri.path());
        Ok(api.guard.authorize::<A>(&parts.headers, peer, &subject).await?)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Path(path) = axum::extract::Path::from_request_parts(parts, state)
            .await
            .map_err(|e: PathRejection| Problem::invalid(e.body_text()))?;
        Ok(Self(path))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(query) = axum::extract::Query::from_request_parts(parts, state)
            .await
            .map_err(|e: QueryRejection| Problem::invalid(e.body_text()))?;
        Ok(Self(query))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::MissingJsonContentType(_) => {
                Self::new(Code::UnsupportedMediaType, "send the body as Content-Type: application/json")
            }
            JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
                FailedToBufferBody::LengthLimitError(_),
            )) => Self::new(Code::BodyTooLarge, "the body is larger than this resource takes"),
            other => Self::invalid(other.body_text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "only parsed")]
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code, reason = "only parsed")]
        site: String,
    }

    async fn parse(content_type: &str, body: impl Into<Body>) -> Result<Json<Sample>, Problem> {
        let request = Request::builder().header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        Json::from_request(request, &()).await
    }

    #[tokio::test]
    async fn a_wrong_field_is_named_with_the_choices() {
        let Err(problem) = parse("application/json", r#"{"inner":{"sight":"x"}}"#).await else { panic!("parsed") };
        let text = format!("{problem:?}");
        assert!(text.contains("inner.sight") && text.contains("`sight`, expected `site`"), "{text}");
        for (body, code) in [("{", Code::InvalidRequest), ("{}", Code::InvalidRequest), ("[]", Code::InvalidRequest)] {
            let Err(problem) = parse("application/json", body).await else { panic!("parsed") };
            assert_eq!(problem.code(), code, "{body}");
        }
    }

    #[tokio::test]
    async fn other_content_types_are_refused() {
        let Err(problem) = parse("text/plain", "{}").await else { panic!("parsed") };
        assert_eq!(problem.code(), Code::UnsupportedMediaType);
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json").body(never).unwrap();
        let Err(problem) = read::<Sample>(request, &(), Duration::from_millis(1)).await else { panic!("parsed") };
        assert_eq!(problem.code(), Code::InvalidRequest);
    }
}
