//! How a bundle lies in an OCI registry: the component as `wkg` writes it, its statements
//! as an artifact that refers to it. Media types and manifests; no I/O.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The component's artifact type, and the type of its configuration.
pub const COMPONENT: &str = "application/vnd.wasm.config.v0+json";
/// The one layer of a component.
pub const COMPONENT_LAYER: &str = "application/wasm";
/// The artifact type of statements, and the type of their layer.
pub const BUNDLE: &str = "application/vnd.in-toto.bundle";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What an artifact without a configuration has for one.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// `sha256:<lowercase hex>`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What points at `bytes`.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// The configuration of a component's artifact, as `wkg` makes it: what it is for, and the
/// digests of its layers. `created` is fixed, so that the same component gives the same
/// bytes.
#[must_use]
pub fn component_config(component: &[u8]) -> Vec<u8> {
    let config = json!({
        "created": "1970-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip2",
        "layerDigests": [digest(component)], "component": null,
    });
    config.to_string().into_bytes()
}

/// The manifest of a component.
#[must_use]
pub fn component_manifest(component: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": COMPONENT,
        "config": descriptor(COMPONENT, &component_config(component)),
        "layers": [descriptor(COMPONENT_LAYER, component)],
    });
    manifest.to_string().into_bytes()
}

/// The manifest of the statements about the artifact with the manifest `subject`.
#[must_use]
pub fn bundle_manifest(statements: &[u8], subject: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
        "config": descriptor(EMPTY, EMPTY_CONFIG),
        "layers": [descriptor(BUNDLE, statements)],
        "subject": descriptor(MANIFEST, subject),
    });
    manifest.to_string().into_bytes()
}

/// The tag under which a registry without the referrers API keeps the list of what refers
/// to the artifact with the manifest `subject`.
#[must_use]
pub fn fallback_tag(subject: &[u8]) -> String {
    digest(subject).replace(':', "-")
}

/// That list with one more statement's manifest, each once. What is no list is replaced.
#[must_use]
pub fn fallback_index(before: Option<&Value>, bundle: &[u8]) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST, bundle);
    entry["artifactType"] = BUNDLE.into();
    let mut manifests = before.and_then(|index| index["manifests"].as_array().cloned()).unwrap_or_default();
    manifests.retain(|other| other["digest"] != entry["digest"]);
    manifests.push(entry);
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_point_at_what_they_are_about() {
        let manifest = component_manifest(b"\0asm");
        let parsed: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        assert_eq!(parsed["config"]["mediaType"], COMPONENT);
        assert_eq!(parsed["layers"][0]["digest"], digest(b"\0asm"));
        let bundle: Value = serde_json::from_slice(&bundle_manifest(b"{}\n", &manifest)).unwrap_or_default();
        assert_eq!(bundle["subject"]["digest"], digest(&manifest));
        assert_eq!(fallback_tag(&manifest).len(), "sha256-".len() + 64);
    }

    #[test]
    fn the_fallback_list_grows_without_repetition() {
        let first: Value = serde_json::from_slice(&fallback_index(None, b"one")).unwrap_or_default();
        let second: Value = serde_json::from_slice(&fallback_index(Some(&first), b"two")).unwrap_or_default();
        let third: Value = serde_json::from_slice(&fallback_index(Some(&second), b"one")).unwrap_or_default();
        assert_eq!(third["manifests"].as_array().map(Vec::len), Some(2));
        assert_eq!(third["manifests"][1]["artifactType"], BUNDLE);
    }
}
