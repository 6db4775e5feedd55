//! `/commands`: what operators ask, and how it ended.
//!
//! - [`body`]: what clients send and get
//! - [`create`]: from a request to an accepted command
//! - [`bind`]: the plans that a command may not depart from
//! - [`read`]: lists, one command, its invocations, its plans
//! - [`events`]: the stream of a command's events
//! - [`control`]: cancel and undo
//! - [`approve`]: operators' signatures before delivery

pub mod approve;
mod bind;
pub mod body;
pub mod control;
pub mod create;
pub mod events;
pub mod read;
