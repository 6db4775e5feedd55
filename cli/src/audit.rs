//! `viworks audit`: every decision of the backend, newest first.

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{Field, Moment};
use crate::listing::{self, Column};
use crate::output::Out;

/// Who did what, and what was refused; administrators only.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  viworks audit --limit 1000 --json")]
pub struct Args {
    /// The most to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        listing::show(client, out, "/audit", &[], self.limit, COLUMNS)
    }
}

const COLUMNS: &[Column] = &[
    ("SEQ", Field("seq")),
    ("AT", Moment("at")),
    ("ACTOR", Field("actor")),
    ("ACTION", Field("action")),
    ("SUBJECT", Field("subject")),
    ("DECISION", Field("decision")),
    ("DETAIL", Field("detail")),
];
