//! Parameters that are lists: many rows go to a statement as one JSON array, so that no
//! statement is sent per agent. Both engines take the same lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, CommandId};

use super::StoreError;
use super::model::AuditEntry;
use super::receipt::NewReceipt;
use super::write::{AgentHello, NewCommand, Settlement};

/// Engines hold signed 64-bit numbers; ours are times and counts far below that.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt { what: "parameter", text: e.to_string() })
}

/// `[at_ms, actor, action, subject, decision, detail]`
pub(super) fn audit(entries: &[&AuditEntry]) -> Result<String, StoreError> {
    let list: Vec<_> =
        entries.iter().map(|e| (e.at_ms, &e.actor, &e.action, &e.subject, e.decision.as_str(), &e.detail)).collect();
    json(&list)
}

/// `[invocation, agent, deliver]`. Ids hold no character that JSON escapes, so that the
/// list is written as it is.
pub(super) fn targets(new: &NewCommand) -> String {
    let mut list = String::with_capacity(new.targets.len() * 72 + 2);
    for target in &new.targets {
        list.push(if list.is_empty() { '[' } else { ',' });
        // Writing to a String can't fail.
        let _ = write!(list, r#"["{}","{}",{}]"#, target.invocation, target.agent, u8::from(target.deliver));
    }
    if list.is_empty() {
        list.push('[');
    }
    list.push(']');
    list
}

/// One receipt of a settled invocation:
/// `[agent, chain, seq, sha256, prev, boot, command, invocation, at_ms, fault, walked, envelope]`
pub(super) fn receipt<'a>(
    agent: &'a AgentId,
    command: &'a str,
    invocation: &'a str,
    at_ms: u64,
    new: &'a NewReceipt,
) -> impl serde::Serialize + use<'a> {
    let NewReceipt { chain, boot, seq, sha256, prev, fault, envelope } = new;
    (agent, chain, seq, sha256, prev, boot, command, invocation, at_ms, fault, u8::from(chain.is_empty()), envelope)
}

pub(super) fn receipts(came: &[(&Settlement, CommandId, &NewReceipt)]) -> Result<String, StoreError> {
    let rows: Vec<_> = came
        .iter()
        .map(|(s, command, new)| receipt(&s.agent, command.as_str(), s.invocation.as_str(), s.finished_ms, new))
        .collect();
    json(&rows)
}

/// What gateways said of themselves, a list for each table.
pub(super) struct Hellos {
    /// `[id, site, labels, version, boot, max_concurrency, at_ms, instance, session]`
    pub agents: String,
    pub ids: String,
    /// `[key, value, agent]`
    pub labels: String,
    /// `[agent, plugin, version, digest, state, detail]`
    pub plugins: String,
    /// `[agent, key_id, pem, at_ms]`
    pub keys: String,
}

pub(super) fn hellos(hellos: &[&AgentHello]) -> Result<Hellos, StoreError> {
    let agents = hellos.iter().map(|h| {
        let owner = (&h.owner.instance, &h.owner.session);
        Ok((&h.agent, &h.site, json(&h.labels)?, &h.version, &h.boot, h.max_concurrency, h.at_ms, owner.0, owner.1))
    });
    let agents = agents.collect::<Result<Vec<_>, StoreError>>()?;
    let ids: Vec<_> = hellos.iter().map(|h| &h.agent).collect();
    let labels: Vec<_> = hellos.iter().flat_map(|h| h.labels.iter().map(|(k, v)| (k, v, &h.agent))).collect();
    // Who names a plugin twice is believed the last time.
    let plugins: BTreeMap<_, _> =
        hellos.iter().flat_map(|h| h.plugins.iter().map(|p| ((&h.agent, p.plugin.as_str()), p))).collect();
    let keys: Vec<_> =
        hellos.iter().filter_map(|h| h.receipt_key.as_ref().map(|(id, pem)| (&h.agent, id, pem, h.at_ms))).collect();
    Ok(Hellos {
        agents: json(&agents)?,
        ids: json(&ids)?,
        labels: json(&labels)?,
        plugins: statuses(&plugins)?,
        keys: json(&keys)?,
    })
}

/// `[agent, plugin, version, digest, state, detail]`
pub(super) fn statuses(statuses: &BTreeMap<(&AgentId, &str), &PluginStatus>) -> Result<String, StoreError> {
    let list: Vec<_> =
        statuses.iter().map(|((a, _), s)| (a, &s.plugin, &s.version, &s.digest, s.state, &s.detail)).collect();
    json(&list)
}
