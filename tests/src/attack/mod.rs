//! The attacks that must be refused, each with its own code. Every one first shows that the
//! same thing unattacked is accepted, so that none can pass because nothing works.
//!
//! - [`release`]: bundles, against `viworks_signing::verify`
//! - [`repository`]: metadata, against `viworks_signing::tuf`
//! - [`gateway`]: its disk and its admission, against `viworks_gateway::plugins`
//! - [`mutations`]: one byte of anything
//!
//! [`rows`] lists them; `viworks-attack` prints a line each, and `tests/attack.rs` is a test
//! each.

pub mod gateway;
pub mod mutations;
pub mod release;
pub mod repository;

use std::error::Error;

/// What an attack got: a refusal's code, or [`ACCEPTED`].
pub type Answer = Result<String, Box<dyn Error + Send + Sync>>;

/// The word for an attack that nothing refused.
pub const ACCEPTED: &str = "ACCEPTED";

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    /// The code that it must be refused with.
    pub code: &'static str,
    pub run: fn() -> Answer,
}

impl Row {
    pub(crate) const fn new(name: &'static str, code: &'static str, run: fn() -> Answer) -> Self {
        Self { name, code, run }
    }

    /// `NAME refused E_CODE`, or what is wrong.
    ///
    /// # Errors
    /// When it was accepted, refused with another code, or could not be tried.
    pub fn check(&self) -> Result<String, String> {
        match (self.run)() {
            Ok(code) if code == self.code => Ok(format!("{} refused {code}", self.name)),
            Ok(code) if code == ACCEPTED => Err(format!("{} {ACCEPTED}", self.name)),
            Ok(code) => Err(format!("{} refused {code}, wanted {}", self.name, self.code)),
            Err(error) => Err(format!("{} could not be tried: {error}", self.name)),
        }
    }
}

/// All of them.
#[must_use]
pub fn rows() -> Vec<Row> {
    [release::ROWS, repository::ROWS, gateway::ROWS, mutations::ROWS].concat()
}

/// Fails unless the unattacked thing was accepted.
pub(crate) fn control<T, E: std::fmt::Debug>(outcome: &Result<T, E>) -> Result<(), Box<dyn Error + Send + Sync>> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the unattacked thing is refused: {error:?}").into()),
    }
}
