//! `viworks plugins`: what is published, and publishing a signed bundle.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};
use crate::parse;

/// Published plugins: list them, publish or deactivate one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  viworks plugins\n  viworks plugins publish dist/accounts.wasm")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List plugins.
    List,
    /// Publish a signed bundle: FILE.wasm, with FILE.wasm.intoto.jsonl beside it.
    Publish {
        /// The component, as `viworks-sign sign` wrote it.
        file: PathBuf,
        /// The signed statements, where they are not beside it.
        #[arg(long, value_name = "FILE")]
        statements: Option<PathBuf>,
    },
    /// Deactivate a plugin: its verbs are gone, its releases stay.
    Deactivate {
        /// The plugin's id.
        plugin: String,
    },
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None | Some(Command::List) => out.list(&client.list("/plugins", &[], 10_000)?, table)?,
            Some(Command::Publish { file, statements }) => {
                let statements = statements.unwrap_or_else(|| beside(&file));
                let component = std::fs::read(&file).map_err(Error::file("read the component", &file))?;
                let text =
                    std::fs::read_to_string(&statements).map_err(Error::file("read the statements", &statements))?;
                let body = json!({ "component": STANDARD.encode(component), "statements": text });
                out.show(&client.post("/plugins", &body)?, |plugin| {
                    format!("{} {} is published\n", cell(&plugin["plugin"]), cell(&plugin["version"]))
                })?;
            }
            Some(Command::Deactivate { plugin }) => {
                client.delete(&format!("/plugins/{}", parse::segment(&plugin)))?;
                out.show(&json!({ "plugin": plugin, "active": false }), |_| format!("{plugin} is deactivated\n"))?;
            }
        }
        Ok(Exit::Succeeded)
    }
}

/// `FILE.wasm.intoto.jsonl`
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".intoto.jsonl");
    name.into()
}

fn table(plugins: &[Value]) -> Table {
    let header = ["PLUGIN", "VERSION", "STATE", "AGENTS", "PUBLISHED", "BY", "DIGEST", "VERBS"];
    let mut table = Table::new(header);
    for plugin in plugins {
        let agents = &plugin["agents"];
        let others: Vec<String> = ["fetching", "refused"]
            .into_iter()
            .filter(|state| agents[*state].as_u64().unwrap_or(0) > 0)
            .map(|state| format!(", {} {state}", cell(&agents[state])))
            .collect();
        let verbs = plugin["verbs"].as_array().into_iter().flatten().map(cell).collect::<Vec<_>>();
        table.row([
            cell(&plugin["plugin"]),
            cell(&plugin["version"]),
            if plugin["active"] == true { "active" } else { "inactive" }.into(),
            format!("{} active{}", agents["active"].as_u64().unwrap_or(0), others.concat()),
            moment(&plugin["published"]),
            cell(&plugin["published_by"]),
            cell(&plugin["digest"]).chars().take(16).collect(),
            verbs.join(","),
        ]);
    }
    table
}
