//! Reading requests: JSON bodies, paths and queries, each with a problem for every way to
//! be wrong. Refuses other content types, unknown fields, slow and oversize bodies.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::time::Duration;

use super::Shared;
use super::problem::{Code, Problem};
use crate::authz::{Action, Permit};

/// A body must have arrived within this time, whatever its size.
pub const BODY_WITHIN: Duration = Duration::from_secs(20);

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

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

async fn read<T: DeserializeOwned>(
    request: Request,
    state: &(impl Send + Sync),
    within: Duration,
) -> Result<T, Problem> {
    match tokio::time::timeout(within, axum::Json::from_request(request, state)).await {
        Ok(Ok(axum::Json(body))) => Ok(body),
        Ok(Err(rejection)) => Err(rejection.into()),
        Err(_) => Err(Problem::invalid(format!("the body did not arrive within {} seconds", within.as_secs()))),
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
    use axum::body::Body;
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
