//! `viworks plugins diff` and `approve`: what a release asks for beyond the active one, in
//! lines that a person can judge.

use serde_json::{Value, json};

use super::release;
use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell};
use crate::parse;

/// Show what a release asks for beyond the active one, and what was never used.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The plugin's id.
    plugin: String,
    /// The release's version, or its digest.
    release: String,
}

/// Approve what a held release asks for.
#[derive(Debug, clap::Args)]
pub struct Approve {
    /// The plugin's id.
    plugin: String,
    /// The release's version, or its digest.
    release: String,
    /// Keep it for a rollout instead of offering it to every gateway at once.
    #[arg(long)]
    stage: bool,
}

impl Diff {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let release = release(client, &self.plugin, &self.release)?;
        let path = format!("/plugins/{}/diff", parse::segment(&self.plugin));
        out.show(&client.get(&path, &[("digest", cell(&release["digest"]))])?, differences)?;
        Ok(Exit::Succeeded)
    }
}

impl Approve {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let release = release(client, &self.plugin, &self.release)?;
        let digest = cell(&release["digest"]);
        let path = format!("/plugins/{}/{}/approve", parse::segment(&self.plugin), parse::segment(&digest));
        let body = if self.stage { json!({ "activate": false }) } else { json!({}) };
        out.show(&client.post(&path, &body)?, |plugin| {
            format!("{} {} is {}\n", cell(&plugin["plugin"]), cell(&plugin["version"]), cell(&plugin["state"]))
        })?;
        Ok(Exit::Succeeded)
    }
}

fn differences(diff: &Value) -> String {
    let from = match &diff["from"] {
        Value::Null => "nothing".to_owned(),
        from => cell(&from["version"]),
    };
    let to = &diff["to"];
    let verdict = if diff["more"] == true { "asks for more" } else { "asks for no more" };
    let mut text = format!(
        "{} {} ({}) {verdict} than {from}\n\n",
        cell(&diff["plugin"]),
        cell(&to["version"]),
        cell(&to["state"])
    );
    let mut table = Table::new(["", "KIND", "WHAT", "BEFORE", "AFTER"]);
    for difference in diff["differences"].as_array().into_iter().flatten() {
        table.row([
            if difference["more"] == true { "+" } else { " " }.to_owned(),
            cell(&difference["kind"]),
            cell(&difference["what"]),
            cell(&difference["before"]),
            cell(&difference["after"]),
        ]);
    }
    text.push_str(&table.to_string());
    let mut table = Table::new(["CAPABILITY", "EFFECTS SEEN OF THE ACTIVE RELEASE"]);
    for used in diff["used"].as_array().into_iter().flatten() {
        let effects = match (&used["effects"], &used["never_used"]) {
            (Value::Null, _) => "can't be told: it is read from".to_owned(),
            (_, Value::Bool(true)) => "never used".to_owned(),
            (count, _) => cell(count),
        };
        table.row([cell(&used["capability"]), effects]);
    }
    text.push('\n');
    text.push_str(&table.to_string());
    text
}
