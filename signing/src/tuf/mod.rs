//! Which releases are current: the client of a TUF 1.0 repository (classic JSON, consistent
//! snapshots, Ed25519 alone), and the makers of its metadata. Refuses whatever is older,
//! mixed, expired, replaced or below its threshold.
//!
//! - [`Client`]: says which file it needs next, is given its bytes, and never does I/O
//! - [`State`]: what it has verified; the caller makes it durable before it uses the rest
//! - [`Trusted`]: what a complete update vouches for: targets, revocations, versions
//! - [`Revocations`]: what was taken back; it only grows
//! - [`metadata`]: the signed types, read strictly; [`canonical`]: the bytes under a
//!   signature; [`role`]: keys and thresholds
//! - [`repo`]: the other side, which drafts, signs and publishes
//!
//! ```no_run
//! # fn fetch(_: &str, _: u64) -> Option<Vec<u8>> { None }
//! # fn persist(_: &[u8]) {}
//! # fn main() -> Result<(), viworks_signing::tuf::TufError> {
//! # let (root, stored, now) = (Vec::new(), viworks_signing::tuf::State::default(), std::time::SystemTime::now());
//! use viworks_signing::tuf::{Client, Step};
//! let mut client = Client::new(&root, stored, now)?;
//! while let Step::Fetch { name, max } = client.next() {
//!     client.supply(fetch(&name, max).as_deref())?;
//! }
//! persist(&client.state().encode()?);
//! let trusted = client.trusted();
//! # Ok(()) }
//! ```

pub mod canonical;
mod client;
mod error;
pub mod metadata;
mod names;
pub mod repo;
mod revocations;
pub mod role;
mod state;
mod trusted;

pub use client::{Client, Step};
pub use error::TufError;
pub use names::{PROGRAM_TARGET, Place, REVOCATIONS, is_target, place, program_name, program_version, target_names};
pub use revocations::{Action, Floor, Revocations, Revoked, RevokedDigest};
pub use state::State;
pub use trusted::{TargetInfo, Trusted, Versions};

/// Bytes of each kind of file, at most. All fit a frame as JSON text.
pub const MAX_ROOT: u64 = 64 * 1024;
pub const MAX_TIMESTAMP: u64 = 16 * 1024;
pub const MAX_SNAPSHOT: u64 = 64 * 1024;
/// Top-level and delegated targets.
pub const MAX_TARGETS: u64 = 1024 * 1024;
pub const MAX_REVOCATIONS: u64 = 512 * 1024;
/// The gateway's own program.
pub const MAX_PROGRAM: u64 = 64 << 20;
/// Root versions that one update steps through, at most.
pub const MAX_ROTATIONS: u64 = 256;

#[cfg(test)]
mod tests;
