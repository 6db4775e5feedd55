//! Who may do what through the API. [`Guard::authorize`] turns a request's bearer token
//! into a [`Permit`] for one action; every refusal is audited and counted. No token and no
//! hash of one is ever logged.
//!
//! - [`token`]: the shape of tokens and their hashes
//! - [`action`]: actions, and the roles that may do them
//! - [`permit`]: principals, and the proof that they may
//! - `cache`: principals remembered for seconds
//! - `rate`: how often a token may ask
//! - [`guard`]: the way from headers to a permit

pub mod action;
mod cache;
pub mod guard;
pub mod permit;
mod rate;
pub mod token;

pub use action::Action;
pub use guard::{Guard, Reason, Refusal};
pub use permit::{Forbidden, Permit, Principal};
pub use rate::RateLimit;
pub use token::{NewToken, TokenHash};
