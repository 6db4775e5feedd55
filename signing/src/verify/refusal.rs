//! Why a bundle was refused. Codes are stable: logs, metrics and other programs hold on
//! to them, while the text is for people.

use crate::{component, dsse, strict_json};

/// The check that refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{what} of {bytes} bytes, at most {max} are read")]
    Size { what: &'static str, bytes: usize, max: usize },
    #[error("more than {} statements", super::MAX_LINES)]
    Lines,
    #[error("statement {line} is malformed")]
    Format { line: usize, source: strict_json::Error },
    #[error("statement {line} does not verify")]
    Signature { line: usize, source: dsse::Error },
    #[error("payload type {found:?} is no in-toto statement")]
    PayloadType { found: String },
    #[error("no release statement")]
    NoRelease,
    #[error("more than one release statement")]
    Ambiguous,
    #[error("the statement's {what} is not valid: {found:?}")]
    Statement { what: &'static str, found: String },
    #[error("{count} subjects, wanted one")]
    Subjects { count: usize },
    #[error("the statement is about the bytes {stated}, these are {real}")]
    Digest { stated: String, real: String },
    #[error("a release of plugin {found:?}{}", wanted.as_ref().map(|w| format!(", wanted {w:?}")).unwrap_or_default())]
    Plugin { found: String, wanted: Option<String> },
    #[error("{}", match verb { None => "no verbs".to_owned(), Some(verb) => format!("verb {verb:?} is malformed") })]
    Verbs { verb: Option<String> },
    #[error("not valid before {not_before}")]
    NotYet { not_before: String },
    #[error("not a component that can be loaded")]
    Component(#[source] component::Error),
    #[error("imports differ from the statement's: {} imported but not declared, {} declared but not imported",
        undeclared.as_deref().unwrap_or("none"), missing.as_deref().unwrap_or("none"))]
    Imports { undeclared: Option<String>, missing: Option<String> },
}

impl Refusal {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } | Self::Lines => "E_SIZE",
            Self::Format { .. } => "E_FORMAT",
            Self::Signature { .. } => "E_SIGNATURE",
            Self::PayloadType { .. } => "E_PAYLOAD_TYPE",
            Self::NoRelease => "E_NO_RELEASE",
            Self::Ambiguous => "E_AMBIGUOUS",
            Self::Statement { .. } => "E_STATEMENT",
            Self::Subjects { .. } => "E_SUBJECT",
            Self::Digest { .. } => "E_DIGEST",
            Self::Plugin { .. } => "E_PLUGIN",
            Self::Verbs { .. } => "E_VERBS",
            Self::NotYet { .. } => "E_NOT_YET",
            Self::Component(_) => "E_COMPONENT",
            Self::Imports { .. } => "E_IMPORTS",
        }
    }
}
