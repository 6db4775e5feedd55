//! What is run: a mutating verb with its arguments, and what may be different on the host
//! once it succeeded. Chosen so that about as much comes as goes.

use std::io::Result;

use serde_json::{Value, json};

use crate::Dice;
use crate::site::Site;
use crate::world::{Change, World};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ada@example.com";

/// More of a kind than this, and one goes rather than comes.
const MANY: usize = 4;

/// A verb about to run.
#[derive(Debug, Clone)]
pub struct Op {
    pub verb: &'static str,
    pub args: Value,
    /// Take this command back instead.
    pub undo: Option<String>,
    /// What success adds and removes: facts that begin so, one each.
    pub adds: Vec<String>,
    pub removes: Vec<String>,
}

/// Choose the next verb, by what is there; containers are made for it. `last` is the last
/// command that succeeded, if nothing happened since: some are taken back.
pub fn choose(site: &Site, world: &World, dice: &mut Dice, round: u64, last: Option<(String, Op)>) -> Result<Op> {
    if let Some((id, op)) = last.filter(|(_, op)| op.is_reversible())
        && dice.roll(3) == 0
    {
        return Ok(Op { undo: Some(id), adds: op.removes, removes: op.adds, ..op });
    }
    Ok(match dice.roll(8) {
        0 | 1 => account(world, dice, round),
        2 => lock(world, dice, round),
        3 | 4 => peer(site, world, dice, round),
        5 => script(site),
        6 => containers(site, world, dice, round)?,
        _ => state(world, dice),
    })
}

/// `account NAME …` → NAME
fn named<'f>(facts: &'f [String], dice: &mut Dice) -> Option<&'f str> {
    dice.pick(facts).and_then(|fact| fact.split(' ').nth(1))
}

fn account(world: &World, dice: &mut Dice, round: u64) -> Op {
    let there = world.about("account ");
    if there.len() >= MANY || (!there.is_empty() && dice.roll(3) == 0) {
        let name = named(&there, dice).unwrap_or_default().to_owned();
        let removes = vec![format!("account {name} "), format!("home {name}"), format!("group {name}:")];
        return Op::of("delete_user", json!({"name": name}), vec![], removes);
    }
    let name = format!("viwtest{round}");
    let adds = vec![format!("account {name} "), format!("home {name}"), format!("group {name}:")];
    let mut args = json!({"name": name, "ssh_keys": [KEY], "groups": ["users"]});
    if dice.roll(2) == 0 {
        args["password_hash"] = json!(format!("$6$viwtest${}", "a".repeat(86)));
    }
    Op::of("add_user", args, adds, vec![])
}

fn lock(world: &World, dice: &mut Dice, round: u64) -> Op {
    let open: Vec<String> = world.about("account ").into_iter().filter(|fact| fact.contains("shadow [\"$6")).collect();
    match named(&open, dice) {
        Some(name) => {
            let fact = vec![format!("account {name} ")];
            Op::of("lock_user", json!({"name": name}), fact.clone(), fact)
        }
        None => account(world, dice, round),
    }
}

fn peer(site: &Site, world: &World, dice: &mut Dice, round: u64) -> Op {
    let there = world.about("vpn ");
    if there.len() >= MANY || (!there.is_empty() && dice.roll(3) == 0) {
        let name = named(&there, dice).unwrap_or_default().to_owned();
        let removes = vec![format!("vpn {name} ")];
        return Op::of("delete_vpn_user", json!({"name": name}), vec![], removes);
    }
    let name = format!("{}-{round}", site.agent);
    Op::of("add_vpn_user", json!({"name": name}), vec![format!("vpn {name} ")], vec![])
}

fn script(site: &Site) -> Op {
    let args = json!({"name": "note.sh", "args": [site.path("noted").display().to_string()]});
    Op::of("run_script", args, vec!["script ran in ".into()], vec![])
}

fn containers(site: &Site, world: &World, dice: &mut Dice, round: u64) -> Result<Op> {
    let mut removes: Vec<String> = world.about("container ");
    let label = format!("worker={}", site.agent);
    for n in 0..=dice.roll(2) {
        let name = format!("{}-{round}-{n}", site.agent);
        let labels = ["--label", "viworks.test=1", "--label", label.as_str()];
        let create = ["create", "--network=none", "--name", name.as_str()];
        site.shared.docker.run(&[&create[..], &labels[..], &["viwcrash:1", "/empty"]].concat())?;
        removes.push(format!("container {name}"));
    }
    let args = json!({"older_than_secs": 0, "labels": [label], "states": ["created"]});
    Ok(Op::of("cleanup_containers", args, vec![], removes))
}

fn state(world: &World, dice: &mut Dice) -> Op {
    let before = world.about("state hostile flood");
    let taken = |n: u64| before.iter().any(|fact| fact.ends_with(&format!("= {n}")));
    // The value that is left tells whether it ran.
    let last = (0..).map(|_| 2 + dice.roll(6)).find(|n| !taken(*n)).unwrap_or_default();
    let adds = vec![format!("state hostile flood = {last}")];
    Op::of("effect_flood", json!({"effects": last + 1}), adds, before)
}

impl Op {
    fn of(verb: &'static str, args: Value, adds: Vec<String>, removes: Vec<String>) -> Self {
        Self { verb, args, undo: None, adds, removes }
    }

    fn is_reversible(&self) -> bool {
        self.undo.is_none() && !matches!(self.verb, "run_script" | "cleanup_containers")
    }

    /// Whether exactly what success means is different.
    pub fn is_done(&self, change: &Change) -> bool {
        matches(&self.adds, &change.added) && matches(&self.removes, &change.removed)
    }
}

/// Each wanted beginning has one fact, and no fact is left over.
fn matches(wanted: &[String], facts: &[String]) -> bool {
    wanted.len() == facts.len() && wanted.iter().all(|begin| facts.iter().any(|fact| fact.starts_with(begin.as_str())))
}
