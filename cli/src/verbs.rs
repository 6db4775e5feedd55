//! `viworks verbs`: what can be run, with arguments and docs.

use clap::Subcommand;
use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{By, Field};
use crate::listing::{self, Column};
use crate::output::{Out, Table, cell, first_sentence, plain_lines};
use crate::parse;
use crate::typing::expectation;

/// The verbs of the active plugins: list them, or show one with its arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  viworks verbs\n  viworks verbs show add_user")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List verbs.
    List,
    /// Show one verb with its arguments.
    Show {
        /// The verb's name.
        verb: String,
    },
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None | Some(Command::List) => listing::show(client, out, "/verbs", &[], listing::MOST, COLUMNS),
            Some(Command::Show { verb }) => out.show(&get(client, &verb)?, one).map(|()| Exit::Succeeded),
        }
    }
}

/// One verb with its schemas.
///
/// # Errors
/// As [`Client::get`].
pub fn get(client: &Client, verb: &str) -> Result<Value, Error> {
    client.get(&format!("/verbs/{}", parse::segment(verb)), &[])
}

const COLUMNS: &[Column] = &[
    ("VERB", Field("verb")),
    ("PLUGIN", Field("plugin")),
    ("VERSION", Field("version")),
    ("EFFECT", Field("effect")),
    ("ABOUT", By(|verb| first_sentence(&cell(&verb["docs"])))),
];

fn one(verb: &Value) -> String {
    let name = cell(&verb["verb"]);
    let plugin = format!("{} {}", cell(&verb["plugin"]), cell(&verb["version"]));
    let mut args = Table::new(["ARGUMENT", "NEEDED", "EXPECTED", "ABOUT"]);
    let required = verb["args"]["required"].as_array().map_or(&[][..], Vec::as_slice);
    let mut example = format!("viworks run {name} --on AGENT");
    for (arg, schema) in verb["args"]["properties"].as_object().into_iter().flatten() {
        let needed = required.iter().any(|name| name.as_str() == Some(arg));
        if needed {
            example.push_str(&format!(" --arg {arg}=…"));
        }
        let about = schema["description"].as_str().map_or_else(|| "-".into(), first_sentence);
        args.row([arg.clone(), if needed { "yes" } else { "-" }.into(), expectation(schema), about]);
    }
    format!(
        "{name}: {}\n\nplugin {}, effect {}, ends after {} s at most\n\n{args}\n{}\n",
        plain_lines(&cell(&verb["docs"])),
        plain_lines(&plugin),
        plain_lines(&cell(&verb["effect"])),
        cell(&verb["timeout_secs"]),
        plain_lines(&example),
    )
}
