//! Signed plugin releases: what a release says, who said it, and what it may ask for.
//!
//! - [`dsse`]: the envelope that every signed statement travels in
//! - [`keys`]: Ed25519 keys, their files and the one strict verifier; [`at_rest`]: keys
//!   under a password
//! - [`signer`]: whatever signs: a key in memory or in a token; [`keyref`]: keys by
//!   reference; [`pkcs11`]: keys in tokens
//! - [`strict_json`]: JSON from outside, with what serde_json lets pass refused
//! - [`manifest`]: `plugin.toml`, what the plugin's author writes; [`fault`]: what is
//!   wrong with it
//! - [`component`]: a component's outline, cheap enough for admission
//! - [`describe`]: a component's own account of itself: imports, verbs, schemas
//! - [`pack`]: doc comments into the component, before it is signed
//! - [`release`]: the signed statement that binds all of it to the bytes
//! - [`review`]: what a security review leaves of it; [`provenance`]: how it was built
//! - [`publish`]: from component and manifest to the signed statement
//! - [`trust`]: who may speak, in which role, and how many must agree
//! - [`verify`]: bytes and statements in, a [`verify::VerifiedRelease`] out
//! - [`tuf`]: which releases are current, and which were taken back
//! - [`succession`]: which release may follow which
//! - [`grant`]: scopes, and the grant that request, reviews and policy leave over
//! - [`policy`]: the host owner's file
//!
//! Pure: no network, no clock of its own, no host access but what a key reference names.

pub mod at_rest;
pub mod component;
mod constraints;
pub mod describe;
pub mod dsse;
pub mod fault;
#[cfg(test)]
mod fixture;
pub mod grant;
pub mod keyref;
pub mod keys;
pub mod manifest;
pub mod names;
pub mod oci;
pub mod pack;
pub mod pkcs11;
pub mod policy;
pub mod provenance;
pub mod publish;
pub mod release;
pub mod review;
pub mod signer;
pub mod strict_json;
pub mod succession;
mod table;
pub mod trust;
pub mod tuf;
pub mod verify;

pub use publish::{build_release, sign_release};
