//! `viworks commands`: what was asked, and how it went.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{By, Field, Moment};
use crate::listing::{self, Column};
use crate::output::{Out, cell};
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
    /// Only those in this state.
    #[arg(long, value_parser = ["awaiting_approval", "queued", "running", "finished", "cancelled", "expired"])]
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
    let query = listing::given(&[("state", &filter.state), ("verb", &filter.verb), ("caller", &filter.caller)]);
    listing::show(client, out, "/commands", &query, filter.limit, COLUMNS)
}

const COLUMNS: &[Column] = &[
    ("COMMAND", Field("id")),
    ("VERB", By(verb)),
    ("STATE", Field("state")),
    ("CALLER", Field("caller")),
    ("CREATED", Moment("created")),
    ("SUCCEEDED", By(|command| cell(&command["counts"]["succeeded"]))),
    ("COUNTS", By(others)),
    ("UNDO", By(undo)),
];

/// `add_user`, or `add_user (plan)`.
fn verb(command: &Value) -> String {
    let plan = if command["mode"] == "plan" { " (plan)" } else { "" };
    format!("{}{plan}", cell(&command["verb"]))
}

/// What it takes back, or what took it back.
fn undo(command: &Value) -> String {
    match (command["undo_of"].as_str(), command["undone_by"].as_str()) {
        (Some(of), _) => format!("of {of}"),
        (None, Some(by)) => format!("by {by}"),
        (None, None) => "-".into(),
    }
}

/// Counts other than of successes, where there are any.
fn others(command: &Value) -> String {
    let counts = command["counts"].as_object();
    let others = counts.into_iter().flatten().filter(|(state, n)| *state != "succeeded" && n.as_u64() != Some(0));
    let text = others.map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".into() } else { text }
}
