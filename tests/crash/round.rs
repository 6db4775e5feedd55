//! One round: a verb is ordered, the gateway is killed somewhere on its way, perhaps once
//! more while it recovers, and started again; then the backend must have one result, and
//! the host must be what that result says.

use std::io::{Error, Result};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::site::Site;
use crate::verbs::{Op, choose};
use crate::world::World;
use crate::{Dice, Tally, say};

/// Longer than any verb with a restart takes; then its result is lost.
const PATIENCE: Duration = Duration::from_secs(45);

/// The longest that a verb of these takes, about, in milliseconds.
const SPREAD_MS: u64 = 160;

/// Commits that a verb of these costs, about.
const COMMITS: u64 = 6;

/// A command that succeeded, and its id.
pub type Done = (String, Op);

/// Where a gateway is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    After(Duration),
    At(&'static str, u64),
}

impl Kill {
    fn choose(dice: &mut Dice) -> Self {
        match dice.roll(4) {
            0 => Self::At("before-commit", 1 + dice.roll(COMMITS)),
            1 => Self::At("after-commit", 1 + dice.roll(COMMITS)),
            _ => Self::After(Duration::from_millis(dice.roll(SPREAD_MS))),
        }
    }
}

/// One round; gives the command if it succeeded. `last`: that of the round before.
pub fn play(site: &mut Site, dice: &mut Dice, tally: &Tally, last: Option<Done>) -> Result<Option<Done>> {
    let round = tally.commands.fetch_add(1, Ordering::Relaxed) as u64;
    let before = World::of(site)?;
    let op = choose(site, &before, dice, round, last)?;
    // What was made for it (containers) was there before it.
    let before = World::of(site)?;
    let kill = Kill::choose(dice);
    if let Kill::At(point, passing) = kill {
        site.arm(point, passing)?;
    }
    let id = order(site, &op)?;
    if end(site, kill, &id)? {
        tally.add(&tally.kills);
    }
    site.disarm()?;
    if site.has_ended()? {
        site.restart()?;
    }
    if dice.roll(3) == 0 {
        let again = Kill::After(Duration::from_millis(dice.roll(2 * SPREAD_MS)));
        if end(site, again, &id)? {
            tally.add(&tally.kills);
            site.restart()?;
        }
    }
    site.ready()?;
    match wait(site, &id, PATIENCE)? {
        Some(invocation) => {
            judge(site, &op, &before, &invocation, kill, tally)?;
            Ok((invocation["state"] == "succeeded").then_some((id, op)))
        }
        None => {
            tally.add(&tally.lost);
            say(&format!("LOST {} {} after {kill:?}\n{}", op.verb, op.args, site.log_tail()));
            Ok(None)
        }
    }
}

fn order(site: &Site, op: &Op) -> Result<String> {
    if let Some(id) = &op.undo {
        let accepted = site.shared.cluster.api.post(&format!("/commands/{id}/undo"), &json!({}))?.expect_status(202)?;
        return Ok(accepted["id"].as_str().unwrap_or_default().to_owned());
    }
    let command = json!({"verb": op.verb, "args": op.args, "agent_targets": [site.agent], "expires_in_secs": 600, "timeout_secs": 30});
    let accepted = site.shared.cluster.api.post("/commands", &command)?;
    let body = if accepted.status == 200 { accepted.body } else { accepted.expect_status(202)? };
    Ok(body["id"].as_str().unwrap_or_default().to_owned())
}

/// Whether it ended the gateway.
fn end(site: &mut Site, kill: Kill, id: &str) -> Result<bool> {
    match kill {
        Kill::After(delay) => {
            std::thread::sleep(delay);
            site.kill()
        }
        Kill::At(..) => {
            let until = Instant::now() + PATIENCE;
            // A verb that passes the point less often ends instead.
            while !site.has_ended()? && Instant::now() < until {
                if finished(site, id)?.is_some() {
                    return Ok(false);
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            site.has_ended()
        }
    }
}

fn finished(site: &Site, id: &str) -> Result<Option<Value>> {
    let command = site.shared.cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
    Ok(if command["finished"].is_null() { None } else { Some(command["invocations"][0].clone()) })
}

fn wait(site: &Site, id: &str, patience: Duration) -> Result<Option<Value>> {
    let until = Instant::now() + patience;
    loop {
        match finished(site, id)? {
            Some(invocation) => return settled_once(site, id, invocation).map(Some),
            None if Instant::now() > until => return Ok(None),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The backend tells each end once, whatever was delivered how often.
fn settled_once(site: &Site, id: &str, invocation: Value) -> Result<Value> {
    let events = site.shared.cluster.api.get(&format!("/commands/{id}/events"))?.body;
    let told = events.as_str().unwrap_or_default().lines().filter(|line| line.trim() == "event: invocation").count();
    if told == 1 { Ok(invocation) } else { Err(Error::other(format!("{id} was settled {told} times: {events}"))) }
}

/// Compare what the result says with what the host shows.
fn judge(site: &Site, op: &Op, before: &World, invocation: &Value, kill: Kill, tally: &Tally) -> Result<()> {
    let after = World::of(site)?;
    let change = after.since(before);
    let complain = |what: &str| {
        let undo = op.undo.as_ref().map(|_| "undo of ").unwrap_or_default();
        say(&format!("{what} {undo}{} {} after {kill:?}\n  {change:?}\n  {invocation}", op.verb, op.args));
    };
    let doubled = after.doubled();
    let ran = change.added.iter().filter(|fact| fact.starts_with("script ran")).count();
    if !doubled.is_empty() || ran > 1 || change.added.len() > op.adds.len() {
        tally.add(&tally.doubles);
        complain(&format!("DOUBLE {doubled:?}"));
        return Ok(());
    }
    let fair = match invocation["state"].as_str().unwrap_or_default() {
        "succeeded" => op.is_done(&change),
        "unknown" => {
            tally.add(&tally.unknown);
            // Nothing shows what a script did; of anything else it should be told why.
            let why = if op.verb == "run_script" { String::new() } else { format!("\n  {change:?}\n  {invocation}") };
            say(&format!("unknown: {} after {kill:?}{why}", op.verb));
            true
        }
        // What can't be taken back is listed as it is, and nothing else is left.
        "failed" => {
            if invocation["failure"]["code"] == "interrupted" {
                tally.add(&tally.interrupted);
            }
            let back = |effect: &Value| effect["state"] == "rolled_back";
            if invocation["effects"].as_array().is_some_and(|all| all.iter().any(back)) {
                tally.add(&tally.rolled_back);
            }
            let stays = |effect: &&Value| effect["irreversible"] == true && effect["state"] == "applied";
            let kept = invocation["effects"].as_array().map_or(0, |all| all.iter().filter(stays).count());
            change.removed.len() == kept && change.added.is_empty()
        }
        other => return Err(Error::other(format!("{} ended as {other}: {invocation}", op.verb))),
    };
    if !fair {
        tally.add(&tally.torn);
        complain("HALF DONE");
    }
    Ok(())
}
