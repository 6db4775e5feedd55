//! The OpenAPI 3.1 document: generated from the handlers, kept as a golden file so that a
//! change of the contract shows in review.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::Shared;

#[derive(OpenApi)]
#[openapi(
    info(title = "ViWorkS backend", description = "Run verbs on a fleet of hosts.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    modifiers(&Token),
    tags(
        (name = "commands", description = "What operators ask, and how it ended"),
        (name = "agents", description = "The gateways"),
        (name = "verbs", description = "What can be asked"),
        (name = "plugins", description = "Signed releases that bring verbs"),
        (name = "tokens", description = "Who may ask"),
        (name = "approvers", description = "Whose signatures approve commands"),
        (name = "receipts", description = "What gateways signed of their invocations"),
        (name = "audit", description = "Every decision"),
        (name = "service", description = "The backend itself"),
    ),
)]
pub(super) struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("viw_ and 43 characters of base64url")
            .build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// This document.
#[utoipa::path(get, operation_id = "get_openapi", path = "/openapi.json", tag = "service", responses((status = 200, body = serde_json::Value)))]
pub async fn get(State(api): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.document.clone())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Set to write the golden file anew.
    const BLESS: &str = "VIW_BLESS";

    #[test]
    fn the_document_is_as_reviewed() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let now = super::super::document();
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(golden == now, "the API's contract changed: review it, then run the test with {BLESS}=1");
        let parsed: serde_json::Value = serde_json::from_str(&now).unwrap();
        assert_eq!(parsed["openapi"], "3.1.0");
    }
}
