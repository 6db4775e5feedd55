//! `viworks plugins`: what is published, how it stands, and everything that is done to it.
//!
//! - [`publish`]: bundles, registries, repositories on their way to the backend
//! - [`review`]: what a release asks for beyond the active one, and its approval
//! - [`rollout`]: a release in stages, and [`watch`] shows how far it is
//! - [`push`]: a bundle into an OCI registry

mod publish;
mod push;
mod review;
mod rollout;
mod watch;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  viworks plugins
  viworks plugins publish dist/accounts.wasm
  viworks plugins publish oci://registry.example.com/plugins/accounts:1.4.2 --stage
  viworks plugins rollout accounts --to 1.4.2 --stages 1,10%,100% --soak 10m --watch
  viworks plugins diff accounts 1.4.2
  viworks plugins kill 3f1c…";

/// Published plugins: list, publish, review, roll out, kill.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List plugins.
    List,
    Publish(publish::Args),
    Push(push::Args),
    Diff(review::Diff),
    Approve(review::Approve),
    Rollout(rollout::Begin),
    Rollouts(rollout::List),
    /// Stop a rollout where it is.
    Pause(rollout::Which),
    /// Go on with a paused rollout.
    Resume(rollout::Which),
    /// End a rollout: its members get the former release again.
    Abort(rollout::Which),
    /// Kill a release: offered to nobody any more, what runs of it is cancelled, and it
    /// never comes back. The release that was active before it takes over.
    Kill {
        /// The release's digest, as `viworks plugins --json` shows it.
        digest: String,
        /// For the audit record.
        #[arg(long, default_value = "")]
        reason: String,
        /// Leave the plugin without a release instead.
        #[arg(long)]
        no_fallback: bool,
    },
    /// The release repository that the backend mirrors.
    Repository,
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
            Some(Command::Publish(args)) => return args.run(client, out),
            Some(Command::Push(args)) => return args.run(out),
            Some(Command::Diff(args)) => return args.run(client, out),
            Some(Command::Approve(args)) => return args.run(client, out),
            Some(Command::Rollout(args)) => return args.run(client, out),
            Some(Command::Rollouts(args)) => return args.run(client, out),
            Some(Command::Pause(args)) => return args.run("pause", client, out),
            Some(Command::Resume(args)) => return args.run("resume", client, out),
            Some(Command::Abort(args)) => return args.run("abort", client, out),
            Some(Command::Kill { digest, reason, no_fallback }) => {
                let body = json!({ "digest": digest, "reason": reason, "fall_back": !no_fallback });
                out.show(&client.post("/plugins/kill", &body)?, killed)?;
            }
            Some(Command::Repository) => out.show(&client.get("/repository", &[])?, publish::repository)?,
            Some(Command::Deactivate { plugin }) => {
                client.delete(&format!("/plugins/{}", parse::segment(&plugin)))?;
                out.show(&json!({ "plugin": plugin, "active": false }), |_| format!("{plugin} is deactivated\n"))?;
            }
        }
        Ok(Exit::Succeeded)
    }
}

fn killed(answer: &Value) -> String {
    let release = &answer["release"];
    let instead = match &answer["fallback"] {
        Value::Null => "nothing is active in its place".to_owned(),
        fallback => format!("{} is active again", cell(&fallback["version"])),
    };
    format!(
        "{} {} is killed; {instead}; {} commands and {} invocations cancelled\n",
        cell(&release["plugin"]),
        cell(&release["version"]),
        cell(&answer["commands_cancelled"]),
        cell(&answer["invocations_cancelled"])
    )
}

/// One release of `plugin`, by version, digest, or the digest's beginning.
///
/// # Errors
/// When none or several fit.
fn release(client: &Client, plugin: &str, wanted: &str) -> Result<Value, Error> {
    let list = client.list("/plugins", &[], 10_000)?;
    let fits = |p: &&Value| {
        let begins = |digest: &str| wanted.len() >= 6 && digest.starts_with(wanted);
        p["plugin"] == plugin && (p["version"] == wanted || p["digest"].as_str().is_some_and(begins))
    };
    let found: Vec<&Value> = list["items"].as_array().into_iter().flatten().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::Usage(format!("{plugin} has no release {wanted}; `viworks plugins` lists them"))),
        _ => Err(Error::Usage(format!("{plugin} has several releases {wanted}; give more of the digest"))),
    }
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
            cell(&plugin["state"]),
            format!("{} active{}", agents["active"].as_u64().unwrap_or(0), others.concat()),
            moment(&plugin["published"]),
            cell(&plugin["published_by"]),
            cell(&plugin["digest"]).chars().take(16).collect(),
            verbs.join(","),
        ]);
    }
    table
}
