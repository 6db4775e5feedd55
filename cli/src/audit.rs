//! `viworks audit`: every decision of the backend, newest first.

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};

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
        out.list(&client.list("/audit", &[], self.limit as usize)?, |entries| {
            let mut table = Table::new(["SEQ", "AT", "ACTOR", "ACTION", "SUBJECT", "DECISION", "DETAIL"]);
            for entry in entries {
                let [seq, actor, action] = ["seq", "actor", "action"].map(|name| cell(&entry[name]));
                let [subject, decision, detail] = ["subject", "decision", "detail"].map(|name| cell(&entry[name]));
                table.row([seq, moment(&entry["at"]), actor, action, subject, decision, detail]);
            }
            table
        })?;
        Ok(Exit::Succeeded)
    }
}
