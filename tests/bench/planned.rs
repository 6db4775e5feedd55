//! The plan of a verb that changes the host beside a verb that reads it, and beside its own
//! apply: what asking first costs.

use std::io::{Error, Result};
use std::sync::Arc;

use serde_json::json;
use viworks_gateway::config::Policy;
use viworks_gateway::host::{Host, HostConfig};
use viworks_gateway::runtime::{Runtime, RuntimeConfig};
use viworks_protocol::warrant::Mode;
use viworks_signing::keys::SecretKey;
use viworks_tests::program::{component, workspace};

use crate::invocation::{Bundle, Ordered, in_turns};
use crate::report::Table;

/// `add_user` planned, and `list_users`, in turns, on a host that is a directory.
pub fn measure(table: &mut Table) -> Result<()> {
    let scopes = json!({"accounts": {"groups": ["users"], "uids": {"min": 20_000, "max": 29_999}}});
    let policy = Policy { scopes: serde_json::from_value(scopes)?, ..Policy::default() };
    let wasm = component("plugins", "viworks_plugin_accounts")?;
    let bundle = Bundle::of(&wasm, &workspace().join("plugins/accounts/plugin.toml"), policy)?;
    let dir = tempfile::tempdir()?;
    let engine = Arc::new(Runtime::new(RuntimeConfig::default()).map_err(Error::other)?);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (_, registry, _) = bundle.install(&tokio, dir.path(), &engine)?;
    let mut config = HostConfig::default();
    config.accounts.root = Some(dir.path().join("root"));
    let host = Arc::new(Host::new(&config));
    let (key, agent) = (SecretKey::generate(), "bench-1".parse().map_err(Error::other)?);
    let (read, change) = (json!({}), json!({"groups": ["users"], "name": "deploy"}));
    let of = |verb, args, mode| Ordered { plugin: "accounts", verb, digest: &bundle.offer.digest, args, mode };
    let orders = [of("list_users", &read, Mode::Apply), of("add_user", &change, Mode::Plan)];
    let (read, planned) = in_turns(&tokio, dir.path(), registry, host, &key, &agent, orders)?;
    let little = |v: f64, b: f64| v <= b * 1.3;
    table.add("plan_of_a_change", "us", &planned, ("read_of_the_same", &read), Some(("≤ 1.3×", little)));
    Ok(())
}
