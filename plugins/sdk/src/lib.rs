//! What a plugin in Rust is written with: the bindings of every `viworks:gateway`
//! interface, made once and shared, and small helpers for failures, log and progress.
//! Holds no verb and knows no plugin.
//!
//! A plugin generates its own world and takes the shared types from here:
//!
//! ```ignore
//! wit_bindgen::generate!({
//!     path: ["../../wit", "wit"],
//!     world: "viworks:accounts/plugin",
//!     with: {
//!         "viworks:gateway/types@1.0.0": viworks_sdk::types,
//!         "viworks:gateway/accounts@1.0.0": viworks_sdk::accounts,
//!     },
//! });
//! ```
//!
//! Interfaces that a plugin never calls leave no import in its component.

mod failure;
mod log_macros;
mod steps;

pub use failure::{OrFailure, OrNotFound};
pub use steps::Progress;
pub use types::{Denial, Failure};
pub use viworks::gateway::{
    accounts, containers, invocation, log, progress, scripts, secrets, state, system, types, vpn,
};

/// What a verb gives back.
pub type Result<T> = std::result::Result<T, Failure>;

wit_bindgen::generate!({
    path: "../../wit",
    world: "viworks:gateway/capabilities",
    additional_derives: [PartialEq],
    generate_all,
});
