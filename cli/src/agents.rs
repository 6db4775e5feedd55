//! `viworks agents`: the gateways as the backend knows them.

use clap::Subcommand;
use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{By, Field, Moment};
use crate::listing::{self, Column};
use crate::output::{Out, Table, cell, moment};
use crate::parse;

/// The gateways: list them, or show one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  viworks agents --status online --label tier=web\n  viworks agents show web-1"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List agents.
    List(Filter),
    /// Show one agent with its plugins.
    Show {
        /// The agent's id.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only those that are `online` or `offline`.
    #[arg(long, value_parser = ["online", "offline"])]
    status: Option<String>,
    /// Only those of this site.
    #[arg(long)]
    site: Option<String>,
    /// Only those with this label.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// The most to list.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None => list(client, out, &self.filter),
            Some(Command::List(filter)) => list(client, out, &filter),
            Some(Command::Show { id }) => {
                let agent = client.get(&format!("/agents/{}", parse::segment(&id)), &[])?;
                out.show(&agent, one)?;
                Ok(Exit::Succeeded)
            }
        }
    }
}

fn list(client: &Client, out: &Out, filter: &Filter) -> Result<Exit, Error> {
    let query = listing::given(&[("status", &filter.status), ("site", &filter.site), ("label", &filter.label)]);
    listing::show(client, out, "/agents", &query, filter.limit, COLUMNS)
}

const COLUMNS: &[Column] = &[
    ("AGENT", Field("id")),
    ("STATUS", Field("status")),
    ("SITE", Field("site")),
    ("VERSION", Field("version")),
    ("PLUGINS", By(plugins)),
    ("LAST SEEN", Moment("last_seen")),
    ("LABELS", By(labels)),
];

fn one(agent: &Value) -> String {
    let mut facts = Table::new(["AGENT", &cell(&agent["id"])]);
    for (name, value) in [
        ("status", cell(&agent["status"])),
        ("site", cell(&agent["site"])),
        ("labels", labels(agent)),
        ("version", cell(&agent["version"])),
        ("first seen", moment(&agent["first_seen"])),
        ("last seen", moment(&agent["last_seen"])),
        ("max concurrency", cell(&agent["max_concurrency"])),
    ] {
        facts.row([name.into(), value]);
    }
    let mut plugins = Table::new(["PLUGIN", "VERSION", "STATE", "DIGEST", "DETAIL"]);
    for plugin in agent["plugins"].as_array().into_iter().flatten() {
        plugins.row([
            cell(&plugin["plugin"]),
            cell(&plugin["version"]),
            cell(&plugin["state"]),
            cell(&plugin["digest"]).chars().take(16).collect(),
            cell(&plugin["detail"]),
        ]);
    }
    format!("{facts}\n{plugins}")
}

/// `active/all`.
fn plugins(agent: &Value) -> String {
    let all = agent["plugins"].as_array().map_or(&[][..], Vec::as_slice);
    format!("{}/{}", all.iter().filter(|plugin| plugin["state"] == "active").count(), all.len())
}

fn labels(agent: &Value) -> String {
    let pairs = agent["labels"].as_object().into_iter().flatten();
    let text = pairs.map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".into() } else { text }
}
