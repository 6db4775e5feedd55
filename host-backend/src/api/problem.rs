//! Every error that a client sees: one closed list of codes, written as RFC 9457
//! problem+json. Refuses to show a cause: what went wrong inside goes to the log.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

const TYPE_BASE: &str = "https://viworks.dev/problems/";

/// What went wrong, for programs. Stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    Unauthenticated,
    Forbidden,
    NotFound,
    UnknownVerb,
    UnknownAgent,
    NoTargets,
    InvalidArguments,
    InvalidRequest,
    BodyTooLarge,
    UnsupportedMediaType,
    MethodNotAllowed,
    Conflict,
    Busy,
    PluginRefused,
    PlanMismatch,
    ApprovalRefused,
    RepositoryRefused,
    Unavailable,
    Internal,
}

impl Code {
    pub const ALL: [Self; 19] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::UnknownVerb,
        Self::UnknownAgent,
        Self::NoTargets,
        Self::InvalidArguments,
        Self::InvalidRequest,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::Busy,
        Self::PluginRefused,
        Self::PlanMismatch,
        Self::ApprovalRefused,
        Self::RepositoryRefused,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code's text, HTTP status and title.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "No valid token"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "The token's role does not allow this"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::UnknownVerb => ("unknown-verb", StatusCode::NOT_FOUND, "No active plugin has this verb"),
            Self::UnknownAgent => ("unknown-agent", StatusCode::NOT_FOUND, "Targets that no gateway has"),
            Self::NoTargets => ("no-targets", StatusCode::UNPROCESSABLE_ENTITY, "The command has no target"),
            Self::InvalidArguments => {
                ("invalid-arguments", StatusCode::UNPROCESSABLE_ENTITY, "The arguments do not fit the verb")
            }
            Self::InvalidRequest => ("invalid-request", StatusCode::BAD_REQUEST, "The request can't be read"),
            Self::BodyTooLarge => ("body-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON")
            }
            Self::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The resource has no such method")
            }
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "The request contradicts what is there"),
            Self::Busy => ("busy", StatusCode::TOO_MANY_REQUESTS, "A bound is reached; try again later"),
            Self::PluginRefused => ("plugin-refused", StatusCode::UNPROCESSABLE_ENTITY, "The plugin is not admitted"),
            Self::PlanMismatch => {
                ("plan-mismatch", StatusCode::UNPROCESSABLE_ENTITY, "The plan is not of this command")
            }
            Self::ApprovalRefused => {
                ("approval-refused", StatusCode::UNPROCESSABLE_ENTITY, "The approval does not count")
            }
            Self::RepositoryRefused => {
                ("repository-refused", StatusCode::UNPROCESSABLE_ENTITY, "The release repository is refused")
            }
            Self::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Something that the backend needs is not there")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The backend failed"),
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    #[must_use]
    pub fn status(self) -> StatusCode {
        self.row().1
    }
}

/// One fault in the arguments or the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ArgumentError {
    /// JSON pointer (RFC 6901) into the arguments: `/name`.
    pub path: String,
    pub message: String,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<ArgumentError>,
    agents: Vec<String>,
    reason: Option<String>,
    retry_after_secs: Option<u32>,
}

/// RFC 9457 problem details.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `https://viworks.dev/problems/<code>`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: Code,
    /// With `invalid-arguments`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<ArgumentError>,
    /// With `unknown-agent`: the ids that are unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub agents: Vec<String>,
    /// The stable code of the refusal, `E_…`, where a plugin, rollout or repository is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            agents: Vec::new(),
            reason: None,
            retry_after_secs: None,
        }
    }

    /// The cause is logged here and shown to nobody.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(cause = chain(cause), "request failed");
        Self::new(Code::Internal, "the backend's log has the cause under this request's id")
    }

    /// A bound that is reached: `what` says which, the client may come back in so many seconds.
    pub fn busy(what: impl Into<String>, retry_after_secs: u32) -> Self {
        Self { retry_after_secs: Some(retry_after_secs), ..Self::new(Code::Busy, what) }
    }

    /// Something outside is gone for now; the client may come back soon.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self { retry_after_secs: Some(2), ..Self::new(Code::Unavailable, what) }
    }

    pub fn not_found(kind: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {kind} {id:?}"))
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    pub fn invalid_arguments(detail: impl Into<String>, errors: Vec<ArgumentError>) -> Self {
        Self { errors, ..Self::new(Code::InvalidArguments, detail) }
    }

    /// Each error's path is of the command's request: `/verb`, `/args/name`.
    pub fn plan_mismatch(detail: impl Into<String>, errors: Vec<ArgumentError>) -> Self {
        Self { errors, ..Self::new(Code::PlanMismatch, detail) }
    }

    pub fn no_targets(detail: impl Into<String>) -> Self {
        Self::new(Code::NoTargets, detail)
    }

    /// Names the first hundred.
    pub fn unknown_agents(unknown: Vec<String>) -> Self {
        let detail = format!("{} of the targets are unknown; nothing was queued", unknown.len());
        Self { agents: unknown.into_iter().take(100).collect(), ..Self::new(Code::UnknownAgent, detail) }
    }

    pub fn plugin_refused(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Code::PluginRefused, detail) }
    }

    /// The same with a stable code of the refusal.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    pub fn wrong_cursor() -> Self {
        Self::invalid("`after` is not a cursor that this list gave")
    }

    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable code of the refusal, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The client was refused, rather than that we failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.code.status().is_client_error() && self.code != Code::Busy
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status, title) = self.code.row();
        let body = ProblemBody {
            kind: format!("{TYPE_BASE}{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            code: self.code,
            errors: self.errors,
            agents: self.agents,
            reason: self.reason,
        };
        let mut response = (status, axum::Json(body)).into_response();
        // For the count of problems.
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"viworks\""));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_serialise() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn busy_says_when_to_come_back_and_a_missing_token_how_to_send_one() {
        let busy = Problem::busy("all slots are taken", 2).into_response();
        assert_eq!((busy.status().as_u16(), &busy.headers()[header::RETRY_AFTER]), (429, &HeaderValue::from(2)));
        let refused = Problem::new(Code::Unauthenticated, "").into_response();
        assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn an_internal_problem_shows_no_cause() {
        let problem = Problem::internal(&std::io::Error::other("disk /dev/secret is full"));
        assert!(!problem.detail.contains("secret"));
    }
}
