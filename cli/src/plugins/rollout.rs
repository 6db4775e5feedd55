//! `viworks plugins rollout` and its steering: stages from a short notation, gates from
//! flags.

use serde_json::{Value, json};

use super::{release, watch};
use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};
use crate::parse;

/// Roll a release out in stages, with gates that roll it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A stage is a number of agents (1), a percentage (10%), channel=NAME (the agents' label
channel), site=NAME or label:KEY=VALUE; with :TIME it has a soak time of its own. Members
stay members. After the last stage the release is the active one, for every agent.

Examples:
  viworks plugins rollout accounts --to 1.4.2 --stages 1,10%,100% --soak 10m --watch
  viworks plugins rollout vpn --to 2.0.0 --stages channel=beta:1h,site=north,100% --max-errors 0
  viworks plugins rollout accounts --to 1.5.0 --shadow 20%:30m --shadow-min 100 --watch

With --shadow, agents that still run the active release plan the new one beside it, before
anybody gets it: nothing of that is applied. Where the new one would do something else, or
fail, the rollout is halted with what departs; then `viworks plugins resume PLUGIN` (an
administrator) goes on in spite of it, and `viworks plugins abort PLUGIN` ends it.")]
pub struct Begin {
    /// The plugin's id.
    plugin: String,
    /// The release's version, or its digest.
    #[arg(long, value_name = "VERSION|DIGEST")]
    to: String,
    /// Who gets it, stage by stage.
    #[arg(long, value_delimiter = ',', value_parser = stage, default_value = "1,10%,100%")]
    stages: Vec<Value>,
    /// Plan it beside the active release first: on whom, and for how long, as a stage.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    shadow: Option<Value>,
    /// So many invocations must have been compared.
    #[arg(long, value_name = "N", requires = "shadow")]
    shadow_min: Option<u32>,
    /// So many may have other effects than the active release's.
    #[arg(long, value_name = "N", requires = "shadow")]
    shadow_max_departed: Option<u32>,
    /// So many may fail where the active release does not.
    #[arg(long, value_name = "N", requires = "shadow")]
    shadow_max_failed: Option<u32>,
    /// How long each stage is watched once its members have the release.
    #[arg(long, value_name = "TIME", value_parser = soak, default_value = "5m")]
    soak: u32,
    /// Judge a verb once the new release ran it so often.
    #[arg(long, value_name = "N")]
    min_samples: Option<u32>,
    /// How much the share of failures may rise (0.05 is five of a hundred).
    #[arg(long, value_name = "SHARE")]
    max_errors: Option<f64>,
    /// How much the share of denials may rise.
    #[arg(long, value_name = "SHARE")]
    max_denials: Option<f64>,
    /// How many times as long the 95th percentile may take.
    #[arg(long, value_name = "FACTOR")]
    max_latency: Option<f64>,
    /// How many times as much cpu time it may use.
    #[arg(long, value_name = "FACTOR")]
    max_cpu: Option<f64>,
    /// The share of members that may refuse the release.
    #[arg(long, value_name = "SHARE")]
    max_refused: Option<f64>,
    /// Let no stage pass before some verb has its samples.
    #[arg(long)]
    require_samples: bool,
    /// Show it live until it ends.
    #[arg(long)]
    watch: bool,
}

/// List a plugin's rollouts, newest first; show one live with --watch.
#[derive(Debug, clap::Args)]
pub struct List {
    /// The plugin's id.
    plugin: String,
    /// Show the newest one live until it ends.
    #[arg(long)]
    watch: bool,
}

/// Which rollout.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The plugin's id.
    plugin: String,
    /// The rollout's id; the newest if absent.
    id: Option<String>,
}

/// A soak time; unlike other times it may be zero.
fn soak(text: &str) -> Result<u32, String> {
    if text == "0" || text == "0s" { Ok(0) } else { parse::secs(text) }
}

/// One stage of the short notation; without `soak_secs` unless it has its own.
fn stage(text: &str) -> Result<Value, String> {
    let (who, own) = match text.strip_prefix("label:") {
        // A label's own colon comes before its soak time's.
        Some(rest) => rest.split_once(':').map_or((text.to_owned(), None), |(l, s)| (format!("label:{l}"), Some(s))),
        None => text.split_once(':').map_or((text.to_owned(), None), |(who, s)| (who.to_owned(), Some(s))),
    };
    let mut stage = if let Some(percent) = who.strip_suffix('%') {
        json!({ "percent": percent.parse::<u8>().map_err(|_| format!("{who:?} is no percentage"))? })
    } else if let Some(pair) = who.strip_prefix("label:") {
        let (key, value) = parse::pair(pair)?;
        json!({ "selector": { "labels": { key: value } } })
    } else {
        match parse::pair(&who) {
            Ok((key, value)) if key == "channel" => json!({ "channel": value }),
            Ok((key, value)) if key == "site" => json!({ "selector": { "site": value } }),
            Ok(_) => return Err(format!("{who:?} is neither channel=, site= nor label:KEY=VALUE")),
            Err(_) => json!({ "agents": who.parse::<u32>().map_err(|_| format!("{who:?} is no number of agents"))? }),
        }
    };
    if let Some(own) = own {
        stage["soak_secs"] = soak(own)?.into();
    }
    Ok(stage)
}

impl Begin {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        let release = release(client, &self.plugin, &self.to)?;
        let stages: Vec<Value> = self
            .stages
            .iter()
            .cloned()
            .map(|mut stage| {
                if stage["soak_secs"].is_null() {
                    stage["soak_secs"] = self.soak.into();
                }
                stage
            })
            .collect();
        let mut gates = json!({ "require_samples": self.require_samples });
        for (name, value) in [
            ("min_samples", self.min_samples.map(Value::from)),
            ("errors", self.max_errors.map(Value::from)),
            ("denials", self.max_denials.map(Value::from)),
            ("latency", self.max_latency.map(Value::from)),
            ("cpu", self.max_cpu.map(Value::from)),
            ("refused", self.max_refused.map(Value::from)),
        ] {
            if let Some(value) = value {
                gates[name] = value;
            }
        }
        let mut body = json!({ "digest": release["digest"], "stages": stages, "gates": gates });
        if let Some(shadow) = self.shadow_stage() {
            body["shadow"] = shadow;
        }
        let path = format!("/plugins/{}/rollouts", parse::segment(&self.plugin));
        let begun = client.post(&path, &body)?;
        if self.watch {
            return watch::follow(client, out, &self.plugin, &cell(&begun["id"]));
        }
        out.show(&begun, |begun| format!("rollout {} begun\n", cell(&begun["id"])))?;
        Ok(Exit::Succeeded)
    }
}

impl Begin {
    fn shadow_stage(&self) -> Option<Value> {
        let mut shadow = self.shadow.clone()?;
        if shadow["soak_secs"].is_null() {
            shadow["soak_secs"] = self.soak.into();
        }
        for (name, value) in [
            ("min_invocations", self.shadow_min),
            ("max_departed", self.shadow_max_departed),
            ("max_failed", self.shadow_max_failed),
        ] {
            if let Some(value) = value {
                shadow[name] = value.into();
            }
        }
        Some(shadow)
    }
}

impl List {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        if self.watch {
            let id = newest(client, &self.plugin)?;
            return watch::follow(client, out, &self.plugin, &id);
        }
        let path = format!("/plugins/{}/rollouts", parse::segment(&self.plugin));
        out.list(&client.list(&path, &[], 1_000)?, |rollouts| {
            let mut table = Table::new(["ROLLOUT", "DIGEST", "STATE", "STAGE", "BEGUN", "BY", "REASON"]);
            for of in rollouts {
                let stages = of["stages"].as_array().map_or(0, Vec::len);
                table.row([
                    cell(&of["id"]),
                    cell(&of["digest"]).chars().take(16).collect(),
                    cell(&of["state"]),
                    match of["shadowing"] == true {
                        true => "shadow".to_owned(),
                        false => format!("{}/{stages}", of["stage"].as_u64().unwrap_or(0) + 1),
                    },
                    moment(&of["created"]),
                    cell(&of["created_by"]),
                    cell(&of["reason"]),
                ]);
            }
            table
        })?;
        Ok(Exit::Succeeded)
    }
}

impl Which {
    /// # Errors
    /// The backend's refusal, or that it can't be reached.
    pub fn run(self, what: &str, client: &Client, out: &Out) -> Result<Exit, Error> {
        let id = match self.id {
            Some(id) => id,
            None => newest(client, &self.plugin)?,
        };
        let path = format!("/plugins/{}/rollouts/{}/{what}", parse::segment(&self.plugin), parse::segment(&id));
        out.show(&client.post(&path, &json!({}))?, |of| {
            format!("rollout {} is {}\n", cell(&of["id"]), cell(&of["state"]))
        })?;
        Ok(Exit::Succeeded)
    }
}

fn newest(client: &Client, plugin: &str) -> Result<String, Error> {
    let list = client.list(&format!("/plugins/{}/rollouts", parse::segment(plugin)), &[], 1)?;
    match &list["items"][0]["id"] {
        Value::String(id) => Ok(id.clone()),
        _ => Err(Error::Usage(format!("{plugin} has no rollout"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_a_short_notation() {
        for (text, wanted) in [
            ("1", json!({"agents": 1})),
            ("10%", json!({"percent": 10})),
            ("10%:30s", json!({"percent": 10, "soak_secs": 30})),
            ("channel=beta:1h", json!({"channel": "beta", "soak_secs": 3600})),
            ("site=north", json!({"selector": {"site": "north"}})),
            ("label:tier=web:0", json!({"selector": {"labels": {"tier": "web"}}, "soak_secs": 0})),
        ] {
            assert_eq!(stage(text), Ok(wanted), "{text}");
        }
        for bad in ["", "x", "300%", "tier=web", "1:x", "label:tier"] {
            assert!(stage(bad).is_err(), "{bad}");
        }
    }
}
