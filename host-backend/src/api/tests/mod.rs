//! The router as a whole, in process, on a real store in a folder of its own.
//!
//! - `fixture`: what every test starts from
//! - `bounds`, `errors`, `roles`, `lists`, `commands`, `plans`, `approvals`, `events`, `plugins`,
//!   `service`: what is shown

mod approvals;
mod bounds;
mod commands;
mod errors;
mod events;
mod fixture;
mod lists;
mod plans;
mod plugins;
mod roles;
mod service;
