//! `viworks approve`: show what a command orders and sign it. What is signed is computed
//! here from what is shown (arguments and targets), so that a backend can't have one thing
//! read and another signed.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Value, json};
use viworks_protocol::approval::Approval;
use viworks_protocol::id::AgentId;
use viworks_protocol::merkle::Tree;
use viworks_protocol::warrant::{Mode, args_sha256};
use viworks_signing::keys::SecretKey;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, plain};
use crate::{invocations, parse};

/// Targets that are named one by one.
const NAMED: usize = 20;

/// Approve a command that awaits it, with a key of your own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An administrator registers the key's public half first: viworks approvers add.

Example:
  viworks approve cmd-0193f1c5a1b27cc0a1d2e3f405162738 --key file:/home/bob/approve.key.pem")]
pub struct Args {
    /// The command's id.
    id: String,
    /// The private key that signs: file:PATH of a PKCS#8 PEM, or env:NAME of a variable that
    /// holds one.
    #[arg(long, value_name = "KEY")]
    key: String,
    /// Don't ask before signing.
    #[arg(long)]
    yes: bool,
}

impl Args {
    /// # Errors
    /// A key that can't be read, an answer that does not hold together, the backend's
    /// refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let key = secret(&self.key)?;
        let path = format!("/commands/{}", parse::segment(&self.id));
        let mut command = client.get(&path, &[])?;
        if command["state"] != "awaiting_approval" {
            return Err(Error::Usage(format!("{} is {}: it awaits no approval", self.id, cell(&command["state"]))));
        }
        invocations::fetch_rest(client, &mut command)?;
        let approval = of(&command).map_err(|what| Error::Usage(format!("{}: {what}; nothing was signed", self.id)))?;
        if !out.is_json() {
            out.write(&shown(&command))?;
        }
        if !self.yes && !agreed()? {
            out.note("nothing was signed");
            return Ok(Exit::Refused);
        }
        let envelope = approval.sign(&key).map_err(|e| Error::Usage(e.to_string()))?;
        let answer = client.post(&format!("{path}/approve"), &json!({ "envelope": envelope }))?;
        out.show(&answer, |answer| {
            let given = answer["approvals"]["given"].as_array().map_or(0, Vec::len);
            let needed = cell(&answer["approvals"]["needed"]);
            format!("{}: {given} of {needed} approvals, {}\n", cell(&answer["id"]), cell(&answer["state"]))
        })?;
        Ok(Exit::Succeeded)
    }
}

/// What must be signed, from what is shown. The reason if the answer contradicts itself.
fn of(command: &Value) -> Result<Approval, String> {
    let text = |name: &str| command[name].as_str().map(str::to_owned).ok_or_else(|| format!("{name} is missing"));
    let targets = command["invocations"].as_array().map_or(&[][..], Vec::as_slice);
    let targets: Vec<AgentId> = targets
        .iter()
        .map(|i| cell(&i["agent"]).parse().map_err(|e: viworks_protocol::id::IdError| e.to_string()))
        .collect::<Result<_, _>>()?;
    let root = Tree::new(&targets).map(|tree| hex::encode(tree.root())).ok_or("it has no targets")?;
    if root != text("targets_root")? {
        return Err("its targets are not those that would be signed".into());
    }
    let args = serde_json_canonicalizer::to_string(&command["args"]).map_err(|e| e.to_string())?;
    let undo = command["undo_of"].as_str().map(|id| id.parse().map_err(|_| format!("{id:?} is no command's id")));
    let plans = command["plans"].as_array().into_iter().flatten().map(cell).collect();
    Ok(Approval {
        command: text("id")?.parse().map_err(|_| "its id is none".to_owned())?,
        verb: text("verb")?,
        digest: text("digest")?,
        args_sha256: args_sha256(&args),
        mode: if command["mode"] == "plan" { Mode::Plan } else { Mode::Apply },
        targets_root: root,
        undo: undo.transpose()?,
        plans,
    })
}

fn shown(command: &Value) -> String {
    let mut facts = Table::new(["COMMAND", &cell(&command["id"])]);
    let what = match command["undo_of"].as_str() {
        Some(of) => format!("{} (takes back {of})", cell(&command["verb"])),
        None => cell(&command["verb"]),
    };
    for (name, value) in [
        ("asked by", cell(&command["caller"])),
        ("verb", what),
        ("mode", cell(&command["mode"])),
        ("plugin", format!("{} {}", cell(&command["plugin"]), cell(&command["digest"]))),
        ("expires", cell(&command["expires"])),
        ("bound to", bound(command)),
        ("approved by", approvals(command)),
    ] {
        facts.row([name.into(), value]);
    }
    let mut text = format!("{facts}\narguments\n");
    for (name, value) in command["args"].as_object().into_iter().flatten() {
        text.push_str(&format!("  {}\n", plain(&format!("{name}: {value}"))));
    }
    let targets = command["invocations"].as_array().map_or(&[][..], Vec::as_slice);
    text.push_str(&format!("\n{} targets\n", targets.len()));
    for target in targets.iter().take(NAMED) {
        text.push_str(&format!("  {}\n", plain(&cell(&target["agent"]))));
    }
    if targets.len() > NAMED {
        text.push_str(&format!("  and {} more (viworks commands show has them)\n", targets.len() - NAMED));
    }
    text
}

fn bound(command: &Value) -> String {
    match command["plans"].as_array().map_or(&[][..], Vec::as_slice) {
        [] => "no plan".into(),
        [one] => format!("plan {}", cell(one)),
        several => format!("{} plans", several.len()),
    }
}

fn approvals(command: &Value) -> String {
    let given: Vec<String> =
        command["approvals"]["given"].as_array().into_iter().flatten().map(|a| cell(&a["operator"])).collect();
    let given = if given.is_empty() { "nobody".to_owned() } else { given.join(", ") };
    format!("{given} ({} needed)", cell(&command["approvals"]["needed"]))
}

/// `file:PATH` or `env:NAME`.
fn secret(reference: &str) -> Result<SecretKey, Error> {
    let pem = match reference.split_once(':') {
        Some(("file", path)) => std::fs::read_to_string(path).map_err(Error::file("read the key", path))?,
        Some(("env", name)) => std::env::var(name).map_err(|_| Error::Usage(format!("--key: {name} is not set")))?,
        _ => return Err(Error::Usage(format!("--key {reference}: is neither file:PATH nor env:NAME"))),
    };
    SecretKey::from_pem(&pem).map_err(|e| Error::Usage(format!("--key {reference}: {e}")))
}

fn agreed() -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage("nobody is there to ask: --yes signs without asking".into()));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "Sign this? [y/N] ").and_then(|()| stderr.flush()).map_err(Error::Output)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Error::Output)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Value {
        let targets: Vec<AgentId> = ["web-1", "web-2"].iter().filter_map(|a| a.parse().ok()).collect();
        let root = Tree::new(&targets).map(|t| hex::encode(t.root()));
        json!({ "id": format!("cmd-{}", "0".repeat(32)), "verb": "delete_user", "digest": "ab".repeat(32), "mode": "apply",
            "args": { "name": "ada", "force": true }, "targets_root": root, "undo_of": null, "plans": [],
            "invocations": [{ "agent": "web-1" }, { "agent": "web-2" }] })
    }

    #[test]
    fn what_is_signed_is_what_is_shown() {
        let approval = of(&command());
        let Ok(approval) = approval else { panic!("{approval:?}") };
        assert_eq!(approval.args_sha256, args_sha256(r#"{"force":true,"name":"ada"}"#));
        assert_eq!((approval.verb.as_str(), approval.mode), ("delete_user", Mode::Apply));
    }

    #[test]
    fn targets_that_are_hidden_are_noticed() {
        let mut less = command();
        less["invocations"] = json!([{ "agent": "web-1" }]);
        assert!(of(&less).is_err_and(|what| what.contains("targets")));
    }
}
