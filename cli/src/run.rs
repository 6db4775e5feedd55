//! `viworks run`: one verb on some agents. Types the arguments by the verb's schema, posts
//! the command, follows it to its end and shows what came of it.

use std::time::Duration;

use clap::ArgGroup;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::error::{Error, Exit, Problem};
use crate::output::{Out, cell};
use crate::{follow, invocations, parse, typing, verbs};

const AFTER_HELP: &str = "\
Arguments are typed by the verb's schema (viworks verbs show VERB). A list is given by
repeating --arg, an item each, or once with commas; records are JSON; bytes are base64 or
@FILE. Agents that are offline get the command when they return, until it expires.

Examples:
  viworks run get_system_health --on web-1
  viworks run add_user --label tier=web --arg name=deploy --arg groups=docker,adm
  viworks run add_user --on web-1,web-2 --args @user.json --arg uid=20001
  viworks run cleanup_containers --all --batch 50 --no-wait
  viworks run add_user --all --arg name=deploy --plan
  viworks run add_user --all --arg name=deploy --bind cmd-0193f1c5a1b27cc0a1d2e3f405162738
  viworks run delete_user --label tier=db --arg name=ada --approvals 2";

/// What an invocation may take beyond its own timeout before `run` stops waiting.
const SLACK_SECS: u32 = 15;
/// How long the backend holds the first answer back, for verbs that end at once.
const FIRST_SECS: u32 = 1;

/// Run a verb on agents and wait for the results.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("targets").required(true).multiple(true))]
pub struct Args {
    /// The verb, for example add_user.
    verb: String,
    /// These agents, by id.
    #[arg(long, value_name = "AGENT", num_args = 1.., value_delimiter = ',', group = "targets",
        conflicts_with_all = ["label", "site", "all"])]
    on: Vec<String>,
    /// Agents with this label; with several, all must hold.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair, group = "targets")]
    label: Vec<(String, String)>,
    /// Agents of this site.
    #[arg(long, group = "targets")]
    site: Option<String>,
    /// Every agent.
    #[arg(long, group = "targets")]
    all: bool,
    /// One argument of the verb; again for another, or for one more item of a list.
    #[arg(long = "arg", short = 'a', value_name = "NAME=VALUE", value_parser = parse::pair)]
    pairs: Vec<(String, String)>,
    /// All arguments as a JSON object, or @FILE with one; --arg goes over it.
    #[arg(long, value_name = "JSON|@FILE")]
    args: Option<String>,
    /// End an invocation after this time; the verb's own limit if absent.
    #[arg(long, value_name = "TIME", value_parser = parse::secs)]
    timeout: Option<u32>,
    /// Let agents that are offline get the command for so long.
    #[arg(long, value_name = "TIME", value_parser = parse::secs)]
    expires: Option<u32>,
    /// At most so many agents at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Say what would be done, and do nothing.
    #[arg(long, conflicts_with = "bind")]
    plan: bool,
    /// Stop before the first effect that this plan does not have: its digest, or the id of the
    /// command that made it.
    #[arg(long, value_name = "PLAN")]
    bind: Option<String>,
    /// Deliver it when so many other operators have approved it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    approvals: Option<u32>,
    /// Posting again with the same key gives the same command.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait so long for the end; the invocation's time limit and some more if absent.
    #[arg(long, value_name = "TIME", value_parser = parse::secs, conflicts_with = "no_wait")]
    wait: Option<u32>,
    /// Print the command's id and don't wait.
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    /// # Errors
    /// Arguments that don't fit, the backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let verb = verbs::get(client, &self.verb)?;
        let args = typing::arguments(&verb["args"], base(self.args.as_deref())?, &self.pairs)?;
        let own_limit = verb["timeout_secs"].as_u64().and_then(|secs| u32::try_from(secs).ok()).unwrap_or(45);
        let wait = self.wait.unwrap_or_else(|| self.timeout.unwrap_or(own_limit).saturating_add(SLACK_SECS));

        let mut request = json!({ "verb": self.verb, "args": args });
        if self.on.is_empty() {
            request["selector"] = self.selector();
        } else {
            request["agent_targets"] = self.on.clone().into();
        }
        let mut optional = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                request[name] = value;
            }
        };
        optional("timeout_secs", self.timeout.map(Value::from));
        optional("expires_in_secs", self.expires.map(Value::from));
        optional("batch", self.batch.map(Value::from));
        optional("mode", self.plan.then(|| "plan".into()));
        optional("plan", self.bind.clone().map(Value::from));
        optional("approvals", self.approvals.map(Value::from));
        optional("idempotency_key", self.idempotency_key.clone().map(Value::from));
        let waits = !self.no_wait && self.approvals.is_none();
        optional("wait_secs", waits.then(|| wait.min(FIRST_SECS).into()));

        let command = client.post("/commands", &request).map_err(|error| explained(error, &verb["args"]))?;
        if !waits {
            out.show(&command, |command| format!("{}\n", command["id"].as_str().unwrap_or_default()))?;
            if self.approvals.is_some() {
                let id = cell(&command["id"]);
                out.note(&format!("{id} awaits approval: viworks approve {id} --key file:KEY.pem"));
            }
            return Ok(Exit::Succeeded);
        }
        let limit = Duration::from_secs(wait.into());
        let command =
            if follow::has_ended(&command) { command } else { follow::follow(client, out, &command, Some(limit))? };
        invocations::show(client, out, command)
    }

    fn selector(&self) -> Value {
        let labels: Map<String, Value> = self.label.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        let mut selector = json!({});
        if !labels.is_empty() {
            selector["labels"] = labels.into();
        }
        if let Some(site) = &self.site {
            selector["site"] = site.clone().into();
        }
        if self.all {
            selector["all"] = true.into();
        }
        selector
    }
}

/// `--args` as an object.
fn base(given: Option<&str>) -> Result<Map<String, Value>, Error> {
    let text = match given {
        None => return Ok(Map::new()),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).map_err(Error::file("read the arguments", path))?,
            None => text.to_owned(),
        },
    };
    serde_json::from_str(&text).map_err(|e| Error::Usage(format!("--args is not a JSON object: {e}")))
}

/// The backend's faults with what the schema expects of each argument.
fn explained(error: Error, schema: &Value) -> Error {
    let Error::Problem(mut problem) = error else { return error };
    let Problem { errors, .. } = &mut *problem;
    for fault in errors {
        let name = fault.path.trim_start_matches('/').trim_start_matches("args/").split('/').next().unwrap_or_default();
        if let Some(schema) = schema["properties"].get(name) {
            fault.message.push_str(&format!(" (expected {})", typing::expectation(schema)));
        }
    }
    Error::Problem(problem)
}
