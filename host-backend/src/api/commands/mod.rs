//! `/commands`: what operators ask, and how it ended.
//!
//! - [`body`]: what clients send and get
//! - [`create`]: from a request to an accepted command
//! - [`read`]: lists, one command, its invocations
//! - [`events`]: the stream of a command's events
//! - [`control`]: cancel, and what is not served yet

pub mod body;
pub mod control;
pub mod create;
pub mod events;
pub mod read;
