//! `viworks approvers`: the keys whose signatures are operators' approvals.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{Field, Moment};
use crate::listing::{self, Column};
use crate::output::{Out, cell};
use crate::parse;

/// Approvers' keys: list; add and remove by administrators only.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  viworks-sign keygen --out bob-approve
  viworks approvers add --operator bob --key bob-approve.pub.pem")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List keys.
    List,
    /// Register an operator's public key.
    Add {
        /// The name of the operator's token.
        #[arg(long)]
        operator: String,
        /// The public key, SPKI PEM.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Its signatures count no more.
    Remove {
        /// The key's id.
        id: String,
    },
}

const COLUMNS: &[Column] = &[
    ("KEY", Field("id")),
    ("OPERATOR", Field("operator")),
    ("CREATED", Moment("created")),
    ("BY", Field("created_by")),
];

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None | Some(Command::List) => {
                return listing::show(client, out, "/approvers", &[], listing::MOST, COLUMNS);
            }
            Some(Command::Add { operator, key }) => {
                let pem = std::fs::read_to_string(&key).map_err(Error::file("read the key", &key))?;
                let answer = client.post("/approvers", &json!({ "operator": operator, "key": pem }))?;
                out.show(&answer, |a| format!("{} approves with {}\n", cell(&a["operator"]), cell(&a["id"])))?;
            }
            Some(Command::Remove { id }) => {
                client.delete(&format!("/approvers/{}", parse::segment(&id)))?;
                out.show(&json!({ "id": id, "removed": true }), |_| format!("{id} is removed\n"))?;
            }
        }
        Ok(Exit::Succeeded)
    }
}
