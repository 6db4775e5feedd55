//! `viworks commands`: what was asked, and how it went.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};
use crate::{follow, invocations, parse};

/// Commands: list them, show, cancel or watch one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  viworks commands --state running\n  viworks commands cancel cmd-0193f1c5a1b27cc0a1d2e3f405162738"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List commands, newest first.
    List(Filter),
    /// Show one command with its invocations.
    Show {
        /// The command's id.
        id: String,
    },
    /// Cancel a command: what has not started won't, what runs is stopped.
    Cancel {
        /// The command's id.
        id: String,
    },
    /// Wait for a command's end and show it; the exit code tells how it went.
    Watch {
        /// The command's id.
        id: String,
        /// Wait at most so long; until the command expires if absent.
        #[arg(long, value_name = "TIME", value_parser = parse::secs)]
        wait: Option<u32>,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only those in this state: queued, running, finished, cancelled or expired.
    #[arg(long, value_parser = ["queued", "running", "finished", "cancelled", "expired"])]
    state: Option<String>,
    /// Only those of this verb.
    #[arg(long)]
    verb: Option<String>,
    /// Only those of this token's name.
    #[arg(long)]
    caller: Option<String>,
    /// The most to list.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let path = |id: &str| format!("/commands/{}", parse::segment(id));
        match self.command {
            None => list(client, out, &self.filter),
            Some(Command::List(filter)) => list(client, out, &filter),
            Some(Command::Show { id }) => {
                let command = client.get(&path(&id), &[])?;
                invocations::show(client, out, command).map(|_| Exit::Succeeded)
            }
            Some(Command::Cancel { id }) => {
                let command = client.post(&format!("{}/cancel", path(&id)), &json!({}))?;
                out.show(&command, |command| format!("{} {}\n", cell(&command["id"]), cell(&command["state"])))?;
                Ok(Exit::Succeeded)
            }
            Some(Command::Watch { id, wait }) => {
                let command = client.get(&path(&id), &[])?;
                let limit = wait.map(|secs| Duration::from_secs(secs.into()));
                invocations::show(client, out, follow::follow(client, out, &command, limit)?)
            }
        }
    }
}

fn list(client: &Client, out: &Out, filter: &Filter) -> Result<Exit, Error> {
    let given = [("state", &filter.state), ("verb", &filter.verb), ("caller", &filter.caller)];
    let query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    out.list(&client.list("/commands", &query, filter.limit as usize)?, |commands| {
        let mut table = Table::new(["COMMAND", "VERB", "STATE", "CALLER", "CREATED", "SUCCEEDED", "COUNTS"]);
        for command in commands {
            table.row([
                cell(&command["id"]),
                cell(&command["verb"]),
                cell(&command["state"]),
                cell(&command["caller"]),
                moment(&command["created"]),
                cell(&command["counts"]["succeeded"]),
                others(&command["counts"]),
            ]);
        }
        table
    })?;
    Ok(Exit::Succeeded)
}

/// Counts other than of successes, where there are any.
fn others(counts: &Value) -> String {
    let others =
        counts.as_object().into_iter().flatten().filter(|(state, n)| *state != "succeeded" && n.as_u64() != Some(0));
    let text = others.map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".into() } else { text }
}
