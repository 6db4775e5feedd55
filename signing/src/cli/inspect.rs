//! `viworks-sign inspect`: what a component says of itself, in plain words. Vouches for
//! nothing: everything it prints is UNVERIFIED.

use clap::Args;
use std::path::PathBuf;

use super::{Error, Exit, Output};

/// Show what a component and its statement say, without verifying either.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    component: PathBuf,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        Ok(Exit::Done)
    }
}
