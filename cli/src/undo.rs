//! `viworks undo`: take back what an ended command did, or say what that would do.

use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::Out;
use crate::{follow, invocations, parse};

/// How long the undo's end is waited for, where nothing else is said.
const WAIT_SECS: u32 = 60;
/// How long the backend holds the first answer back.
const FIRST_SECS: u32 = 1;

/// Take back what a command did, on every agent where it had effects.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What was changed on a host since is a conflict there, found before anything is taken back.

Examples:
  viworks undo cmd-0193f1c5a1b27cc0a1d2e3f405162738 --plan
  viworks undo cmd-0193f1c5a1b27cc0a1d2e3f405162738
  viworks undo cmd-0193f1c5a1b27cc0a1d2e3f405162738 --bind cmd-0193f1c5b2c38dd1b2e3f40516273849

An undo can be undone by its own id: what it took back is there again.")]
pub struct Args {
    /// The command's id.
    id: String,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    plan: bool,
    /// Stop before the first effect that this plan of the undo does not have: its digest, or
    /// the id of the command that made it.
    #[arg(long, value_name = "PLAN", conflicts_with = "plan")]
    bind: Option<String>,
    /// Deliver it when so many other operators have approved it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    approvals: Option<u32>,
    /// Let agents that are offline get it for so long.
    #[arg(long, value_name = "TIME", value_parser = parse::secs)]
    expires: Option<u32>,
    /// Wait so long for the end; a minute if absent.
    #[arg(long, value_name = "TIME", value_parser = parse::secs)]
    wait: Option<u32>,
}

impl Args {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let mut request = json!({ "mode": if self.plan { "plan" } else { "apply" } });
        if let Some(secs) = self.expires {
            request["expires_in_secs"] = secs.into();
        }
        if let Some(plan) = self.bind {
            request["plan"] = plan.into();
        }
        match self.approvals {
            Some(needed) => request["approvals"] = needed.into(),
            None => request["wait_secs"] = FIRST_SECS.into(),
        }
        let command = client.post(&format!("/commands/{}/undo", parse::segment(&self.id)), &request)?;
        if self.approvals.is_some() {
            out.show(&command, |command| format!("{}\n", command["id"].as_str().unwrap_or_default()))?;
            return Ok(Exit::Succeeded);
        }
        let limit = Duration::from_secs(self.wait.unwrap_or(WAIT_SECS).into());
        let command =
            if follow::has_ended(&command) { command } else { follow::follow(client, out, &command, Some(limit))? };
        invocations::show(client, out, command)
    }
}
