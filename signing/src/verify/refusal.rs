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
    #[error("statement {line} is signed by a trusted key, but by none of the {wanted} role")]
    Role { line: usize, wanted: &'static str },
    #[error("signed by {found} of the {role} role's keys, wanted {wanted} distinct ones")]
    Threshold { role: &'static str, found: usize, wanted: u32 },
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
    #[error("{found:?} can't be a plugin's id: lower-case words joined by \"-\"")]
    Name { found: String },
    #[error("a release of plugin {found:?}{}", wanted.as_ref().map(|w| format!(", wanted {w:?}")).unwrap_or_default())]
    Plugin { found: String, wanted: Option<String> },
    #[error("version {found} has build metadata, so that two releases could be one version")]
    Version { found: String },
    #[error("{}", match verb { None => "no verbs".to_owned(), Some(verb) => format!("verb {verb:?} is malformed") })]
    Verbs { verb: Option<String> },
    #[error("not valid before {not_before}")]
    NotYet { not_before: String },
    #[error("not a component that can be loaded")]
    Component(#[source] component::Error),
    #[error("imports differ from the statement's: {} imported but not declared, {} declared but not imported",
        undeclared.as_deref().unwrap_or("none"), missing.as_deref().unwrap_or("none"))]
    Imports { undeclared: Option<String>, missing: Option<String> },
    #[error("no security review; {wanted} of the security role's keys must have reviewed it")]
    NoReview { wanted: u32 },
    #[error("the review is of {reviewed}, and this release is {real}")]
    OtherReview { reviewed: String, real: String },
    #[error("the review is malformed: {what}")]
    Review { what: &'static str },
    #[error("the provenance is malformed or of other bytes: its {what}")]
    Provenance { what: &'static str },
}

/// Every code of [`Refusal::code`], and what it means.
pub const CODES: [(&str, &str); 32] = [
    ("E_SIZE", "more bytes or lines than are read"),
    ("E_FORMAT", "not JSON, or of another shape than the statement's kind has"),
    ("E_JSON_DUPLICATE", "a key twice in one JSON object"),
    ("E_JSON_FLOAT", "a fraction or exponent where signed statements have none"),
    ("E_JSON_BOM", "JSON that begins with a byte order mark"),
    ("E_JSON_DEPTH", "JSON that nests too deep"),
    ("E_SIGNATURES", "more signatures on one envelope than are read"),
    ("E_SIGNATURE", "no signature by a trusted key"),
    ("E_MALLEABLE", "a signature that could be spelled in another way (S + L, base64)"),
    ("E_ALTERED", "a trusted key signed something else: another payload or another type"),
    ("E_ROLE", "signed by a trusted key of the wrong role"),
    ("E_THRESHOLD", "fewer distinct keys of a role than must agree"),
    ("E_PAYLOAD_TYPE", "an envelope of another kind than in-toto statements"),
    ("E_NO_RELEASE", "statements, but no release among them"),
    ("E_AMBIGUOUS", "more than one release statement"),
    ("E_STATEMENT", "a field of the statement that is not valid"),
    ("E_SUBJECT", "none or several subjects"),
    ("E_DIGEST", "other bytes than the statement's"),
    ("E_NAME", "a plugin's name that could be taken for another, or for a path"),
    ("E_PLUGIN", "a release of another plugin than the wanted one"),
    ("E_VERSION", "a version with build metadata"),
    ("E_VERBS", "no verbs, or a malformed one"),
    ("E_NOT_YET", "not valid yet"),
    ("E_CORE_MODULE", "a core module, not a component"),
    ("E_PRECOMPILED", "precompiled code, not a component"),
    ("E_COMPONENT", "not a well-formed component"),
    ("E_IMPORTS", "imports that were not declared, or declared ones that are not there"),
    ("E_REVIEW_MISSING", "no security review where one is needed"),
    ("E_REVIEW_MISMATCH", "a security review of another release"),
    ("E_REVIEW", "a malformed security review"),
    ("E_PROVENANCE", "malformed provenance, or of other bytes"),
    // Told by the policy, not by a `Refusal`: it is known only once a release is verified.
    ("E_POLICY_PLUGIN", "a plugin that the host's policy does not take"),
];

impl Refusal {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } | Self::Lines => "E_SIZE",
            Self::Format { source, .. } => format(source),
            Self::Signature { source, .. } => match source {
                dsse::Error::TooManySignatures { .. } => "E_SIGNATURES",
                dsse::Error::NoTrustedSignature => "E_SIGNATURE",
                dsse::Error::NotCanonical => "E_MALLEABLE",
                dsse::Error::Altered { .. } => "E_ALTERED",
                dsse::Error::PayloadType { .. } => "E_PAYLOAD_TYPE",
                dsse::Error::Payload => "E_FORMAT",
            },
            Self::Role { .. } => "E_ROLE",
            Self::Threshold { .. } => "E_THRESHOLD",
            Self::PayloadType { .. } => "E_PAYLOAD_TYPE",
            Self::NoRelease => "E_NO_RELEASE",
            Self::Ambiguous => "E_AMBIGUOUS",
            Self::Statement { .. } => "E_STATEMENT",
            Self::Subjects { .. } => "E_SUBJECT",
            Self::Digest { .. } => "E_DIGEST",
            Self::Name { .. } => "E_NAME",
            Self::Plugin { .. } => "E_PLUGIN",
            Self::Version { .. } => "E_VERSION",
            Self::Verbs { .. } => "E_VERBS",
            Self::NotYet { .. } => "E_NOT_YET",
            Self::Component(component::Error::CoreModule) => "E_CORE_MODULE",
            Self::Component(component::Error::Precompiled) => "E_PRECOMPILED",
            Self::Component(_) => "E_COMPONENT",
            Self::Imports { .. } => "E_IMPORTS",
            Self::NoReview { .. } => "E_REVIEW_MISSING",
            Self::OtherReview { .. } => "E_REVIEW_MISMATCH",
            Self::Review { .. } => "E_REVIEW",
            Self::Provenance { .. } => "E_PROVENANCE",
        }
    }
}

fn format(source: &strict_json::Error) -> &'static str {
    match source {
        strict_json::Error::TooLarge { .. } => "E_SIZE",
        strict_json::Error::DuplicateKey { .. } => "E_JSON_DUPLICATE",
        strict_json::Error::Float { .. } => "E_JSON_FLOAT",
        strict_json::Error::ByteOrderMark => "E_JSON_BOM",
        strict_json::Error::TooDeep => "E_JSON_DEPTH",
        strict_json::Error::Syntax(_) | strict_json::Error::Shape(_) => "E_FORMAT",
    }
}
