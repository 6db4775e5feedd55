//! `viworks tokens`: who may use the API. A token's text is printed once, when it is made.

use clap::Subcommand;
use serde_json::json;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{Field, Moment};
use crate::listing::{self, Column};
use crate::output::{Out, cell};
use crate::parse;

/// API tokens: create, list, revoke; administrators only.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  viworks tokens create --name ci --role publisher --expires 90d > ci.token\n  viworks tokens revoke ci"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List tokens, without their texts.
    List,
    /// Make a token and print it, once.
    Create {
        /// Whom the audit log names.
        #[arg(long)]
        name: String,
        /// viewer reads; operator also runs commands; publisher also publishes plugins;
        /// admin does everything.
        #[arg(long, value_parser = ["viewer", "operator", "publisher", "admin"])]
        role: String,
        /// Until then it is valid, for example 90d; for ever if absent.
        #[arg(long, value_name = "TIME", value_parser = parse::secs)]
        expires: Option<u32>,
    },
    /// Revoke a token.
    Revoke {
        /// The token's name.
        name: String,
    },
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None | Some(Command::List) => {
                return listing::show(client, out, "/tokens", &[], listing::MOST, COLUMNS);
            }
            Some(Command::Create { name, role, expires }) => {
                let mut request = json!({ "name": name, "role": role });
                if let Some(secs) = expires {
                    request["expires_in_secs"] = secs.into();
                }
                out.show(&client.post("/tokens", &request)?, |token| format!("{}\n", cell(&token["token"])))?;
            }
            Some(Command::Revoke { name }) => {
                client.delete(&format!("/tokens/{}", parse::segment(&name)))?;
                out.show(&json!({ "name": name, "revoked": true }), |_| format!("{name} is revoked\n"))?;
            }
        }
        Ok(Exit::Succeeded)
    }
}

const COLUMNS: &[Column] =
    &[("NAME", Field("name")), ("ROLE", Field("role")), ("CREATED", Moment("created")), ("EXPIRES", Moment("expires"))];
