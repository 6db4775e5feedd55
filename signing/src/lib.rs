//! Signed plugin releases: what a release says, who said it, and what it may ask for.
//!
//! - [`dsse`]: the envelope that every signed statement travels in
//! - [`keys`]: Ed25519 keys, their files and the one strict verifier
//! - [`strict_json`]: JSON from outside, with what serde_json lets pass refused
//! - [`manifest`]: `plugin.toml`, what the plugin's author writes
//! - [`describe`]: a component's own account of itself: imports, verbs, schemas
//! - [`release`]: the signed statement that binds all of it to the bytes
//! - [`verify`]: bytes and statements in, a [`verify::VerifiedRelease`] out
//! - [`grant`]: scopes, and the grant that request and policy leave over
//!
//! Pure: no network, no clock of its own, no host access but the files that
//! `viworks-sign` names.

pub mod dsse;
pub mod grant;
pub mod keys;
pub mod release;
