//! The ViWorkS backend: operators' API on one port, agents' sessions on another, and
//! between them the store, the command engine and the plugin catalogue.
//!
//! - [`api`]: operators' requests
//! - [`authz`]: who may ask for what
//! - [`catalog`]: published plugins, their verbs and schemas
//! - [`repository`]: the release repository, mirrored; bundles from registries
//! - [`rollouts`]: releases in stages, judged by what they do
//! - [`dispatch`]: commands on their way to agents and back
//! - [`edge`]: who a peer really is, and whether there is room for it
//! - [`hub`]: agents' sessions
//! - [`cluster`]: several instances over one store
//! - [`telemetry`]: samples into the store
//! - [`store`]: everything durable
//! - [`background`]: tasks that are started again when they fall, and stopped in time
//! - [`spans`]: traces of sampled requests
//! - [`health`]: what works and what does not
//! - [`app`]: all of it put together

pub mod api;
pub mod app;
pub mod authz;
pub mod background;
pub mod backup;
pub mod catalog;
mod chores;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod dispatch;
pub mod edge;
pub mod health;
pub mod hub;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod repository;
pub mod rollouts;
pub mod spans;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
