//! Everything that a verb could have changed on one worker's host, as plain facts that can
//! be compared. Read from the files and the engine themselves, never through the gateway.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, Result};

use crate::site::Site;

/// A fact and how often it is there: more than once is one effect too many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World(BTreeMap<String, u32>);

/// What became different.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl World {
    pub fn of(site: &Site) -> Result<Self> {
        let mut world = Self::default();
        world.accounts(site);
        world.vpn(site);
        world.scripts(site);
        world.state(site)?;
        let label = format!("label=worker={}", site.agent);
        let listed =
            site.shared.docker.run(&["ps", "-a", "--no-trunc", "--filter", &label, "--format", "{{.Names}}"])?;
        listed.lines().for_each(|name| world.fact(format!("container {name}")));
        Ok(world)
    }

    fn fact(&mut self, fact: String) {
        *self.0.entry(fact).or_default() += 1;
    }

    fn accounts(&mut self, site: &Site) {
        let read = |file: &str| fs::read_to_string(site.path("root/etc").join(file)).unwrap_or_default();
        let (shadow, group) = (read("shadow"), read("group"));
        for line in read("passwd").lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, _] = fields[..] else { continue };
            if !name.starts_with("viwtest") {
                continue;
            }
            let locks = shadow.lines().filter(|l| l.starts_with(&format!("{name}:")));
            let locks: Vec<String> = locks.map(|l| l.split(':').skip(1).collect::<Vec<_>>().join(":")).collect();
            let member = |l: &&str| l.rsplit(':').next().is_some_and(|all| all.split(',').any(|m| m == name));
            let groups: Vec<&str> = group.lines().filter(member).filter_map(|l| l.split(':').next()).collect();
            let root = site.path("root");
            let home = root.join(home.trim_start_matches('/'));
            let keys = fs::read_to_string(home.join(".ssh/authorized_keys")).unwrap_or_default().len();
            self.fact(format!(
                "account {name} uid {uid} gid {gid} shadow {locks:?} groups {groups:?} home {} keys {keys}",
                home.is_dir()
            ));
        }
        // A group that outlives its account is half a change.
        for line in group.lines().filter(|l| l.starts_with("viwtest")) {
            self.fact(format!("group {}", line.split(':').take(3).collect::<Vec<_>>().join(":")));
        }
        let homes = fs::read_dir(site.path("root/home")).into_iter().flatten().flatten();
        homes.for_each(|home| self.fact(format!("home {}", home.file_name().display())));
    }

    fn vpn(&mut self, site: &Site) {
        let conf = fs::read_to_string(site.path("wg0.conf")).unwrap_or_default();
        let mut name = "";
        for line in conf.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix('#') {
                name = comment.split(['"', ' ', '=']).rfind(|word| word.starts_with("crash-")).unwrap_or(name);
            }
            if let Some(key) = line.strip_prefix("PublicKey") {
                self.fact(format!("vpn {name} {}", key.trim_start_matches([' ', '='])));
            }
        }
        let index = fs::read_to_string(site.path("ovpn/certificates.jsonl")).unwrap_or_default();
        let entries = index.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        for entry in entries.filter(|entry| entry["revoked"].is_null()) {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            self.fact(format!("vpn {} {} stands {}", text("name"), text("serial"), entry["session_may_stand"]));
        }
    }

    fn scripts(&mut self, site: &Site) {
        let noted = fs::read_to_string(site.path("noted")).unwrap_or_default();
        noted.lines().for_each(|invocation| self.fact(format!("script ran in {invocation}")));
    }

    fn state(&mut self, site: &Site) -> Result<()> {
        let file = site.path("state/plugin-state.db");
        if !file.exists() {
            return Ok(());
        }
        let db = rusqlite::Connection::open(&file).map_err(Error::other)?;
        db.busy_timeout(std::time::Duration::from_secs(5)).map_err(Error::other)?;
        let Ok(mut rows) = db.prepare("SELECT plugin, key, value FROM state") else { return Ok(()) };
        let facts = rows
            .query_map([], |row| {
                let (plugin, key, value): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(format!("state {plugin} {key} = {value}"))
            })
            .map_err(Error::other)?;
        facts.flatten().for_each(|fact| self.fact(fact));
        Ok(())
    }

    /// Facts that begin so.
    pub fn about(&self, prefix: &str) -> Vec<String> {
        self.0.keys().filter(|fact| fact.starts_with(prefix)).cloned().collect()
    }

    /// Facts that are there more than once.
    pub fn doubled(&self) -> Vec<&String> {
        self.0.iter().filter(|(_, n)| **n > 1).map(|(fact, _)| fact).collect()
    }

    pub fn since(&self, before: &Self) -> Change {
        let only = |a: &Self, b: &Self| a.0.keys().filter(|fact| !b.0.contains_key(*fact)).cloned().collect();
        Change { added: only(self, before), removed: only(before, self) }
    }
}
