//! Two hosts made of network namespaces and a wire between them: 192.0.2.1 (left) and
//! 192.0.2.2 (right). Gone when dropped.

use std::io::Result;
use std::path::Path;
use std::process::Command;

use crate::program::{Running, run};

const IP: &str = "/sbin/ip";

/// Names the wire on whose left host this process runs.
const INSIDE: &str = "VIWORKS_TEST_WIRE";

/// The two namespaces.
#[derive(Debug)]
pub struct Wire {
    pub left: String,
    pub right: String,
    /// Whether they end with this value.
    owned: bool,
}

impl Wire {
    /// Make them; `tag` and the process id keep the names apart from others'.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn new(tag: &str) -> Result<Self> {
        let id = std::process::id();
        let wire = Self { left: format!("viw-{tag}l-{id}"), right: format!("viw-{tag}r-{id}"), owned: true };
        let (l, r) = (wire.left.as_str(), wire.right.as_str());
        let (dev_l, dev_r) = (format!("{tag}l{id}"), format!("{tag}r{id}"));
        ip(&["netns", "add", l])?;
        ip(&["netns", "add", r])?;
        ip(&["link", "add", &dev_l, "netns", l, "type", "veth", "peer", "name", &dev_r, "netns", r])?;
        for (ns, dev, address) in [(l, &dev_l, "192.0.2.1/24"), (r, &dev_r, "192.0.2.2/24")] {
            ip(&["-n", ns, "addr", "add", address, "dev", dev])?;
            ip(&["-n", ns, "link", "set", dev, "up"])?;
            ip(&["-n", ns, "link", "set", "lo", "up"])?;
        }
        Ok(wire)
    }

    /// Run the calling test, `test` by its whole name, once more on the left host of a new wire; there
    /// `body` is what it does. What listens on 127.0.0.1 or 192.0.2.1 there is nobody else's.
    ///
    /// # Errors
    /// What the body says, or `ip`.
    pub fn with_test(test: &str, tag: &str, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        if let Some((left, right)) = std::env::var(INSIDE).ok().as_deref().and_then(|names| names.split_once(',')) {
            return body(&Self { left: left.to_owned(), right: right.to_owned(), owned: false });
        }
        let wire = Self::new(tag)?;
        let exe = std::env::current_exe()?;
        let inside = format!("{INSIDE}={},{}", wire.left, wire.right);
        let exe = exe.to_string_lossy();
        wire.run(&wire.left, &["env", &inside, &exe, "--exact", test, "--nocapture"]).map(drop)
    }

    /// The right host's end of the wire, down or up.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn link(&self, up: bool) -> Result<()> {
        let links = self.run(&self.right, &["ip", "-br", "link", "show", "type", "veth"])?;
        let dev = links.split(['@', ' ']).next().unwrap_or_default();
        ip(&["-n", &self.right, "link", "set", dev, if up { "up" } else { "down" }]).map(drop)
    }

    /// Whether packets between the two are dropped without a word.
    ///
    /// # Errors
    /// When `iptables` refuses.
    pub fn dropping(&self, drops: bool) -> Result<()> {
        let action = if drops { "-A" } else { "-D" };
        for (chain, way) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            self.run(&self.right, &["iptables", "-w", action, chain, way, "192.0.2.1", "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Run a command in a namespace to its end.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, ns: &str, args: &[&str]) -> Result<String> {
        run(Path::new(IP), [&["netns", "exec", ns], args].concat())
    }

    /// Start a command in a namespace.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, ns: &str, args: &[&str], log: &Path) -> Result<Running> {
        Running::start_with(Command::new(IP).args(["netns", "exec", ns]).args(args), log)
    }

    /// One ping within two seconds.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ping(&self, ns: &str, address: &str) -> Result<()> {
        self.run(ns, &["ping", "-c", "1", "-W", "2", address]).map(drop)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for ns in [&self.left, &self.right].into_iter().filter(|_| self.owned) {
            // Nothing to do about a failure here; the name is this process's own.
            let _ = ip(&["netns", "del", ns]);
        }
    }
}

fn ip(args: &[&str]) -> Result<String> {
    run(Path::new(IP), args)
}
