//! The gateway: runs signed verbs on a managed host, within what its owner granted.
//!
//! The path of one invocation, forward: [`link`] receives an order → `warrant::verify`
//! (in `viworks-protocol`) → [`executor`] → [`journal`] → [`runtime`] instantiates the
//! plugin → a function in [`capabilities`] checks its scope → [`effects`] journals and
//! applies → the report goes to the journal's outbox → [`link`] delivers it.
//!
//! The path of one plugin: [`trust`] learns what the release repository says → [`link`] is
//! offered a digest → [`plugins`] fetches, admits, compiles, tries out and swaps.

pub mod app;
pub mod audit;
pub mod broker;
pub mod capabilities;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod effects;
pub mod executor;
pub mod failure;
pub mod host;
pub mod journal;
pub mod link;
pub mod log;
mod memory;
pub mod plugins;
pub mod policy;
pub mod process;
pub mod receipts;
pub mod recording;
pub mod runtime;
pub mod selfupdate;
pub mod status;
pub mod telemetry;
pub mod trust;
pub(crate) mod vault;
