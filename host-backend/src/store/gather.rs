//! Many notes into what each table is told: of what an agent says of itself the last word
//! counts. No SQL.

use std::collections::BTreeMap;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::telemetry::Sample;

use super::model::AuditEntry;
use super::write::{AgentHello, Note};

/// What became of an agent's session, as its instance says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presence<'a> {
    pub online: bool,
    pub instance: &'a str,
    pub session: &'a str,
    pub at_ms: u64,
}

/// Sorted by agent, so that engines lock rows in one order.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    pub hellos: BTreeMap<&'a AgentId, &'a AgentHello>,
    pub presence: BTreeMap<&'a AgentId, Presence<'a>>,
    pub statuses: BTreeMap<(&'a AgentId, &'a str), &'a PluginStatus>,
    pub running: Vec<(&'a InvocationId, &'a AgentId, u64)>,
    pub samples: Vec<(&'a AgentId, u64, &'a Sample)>,
    pub audit: Vec<&'a AuditEntry>,
}

pub(super) fn gather(notes: &[Note]) -> Gathered<'_> {
    let mut of = Gathered::default();
    for note in notes {
        match note {
            Note::Hello(hello) => {
                of.hellos.insert(&hello.agent, hello);
                let (instance, session) = (hello.owner.instance.as_str(), hello.owner.session.as_str());
                of.presence.insert(&hello.agent, Presence { online: true, instance, session, at_ms: hello.at_ms });
                of.statuses.retain(|(agent, _), _| *agent != &hello.agent);
            }
            Note::Gone { agent, owner, at_ms } => {
                let (instance, session) = (owner.instance.as_str(), owner.session.as_str());
                // The end of an earlier session says nothing of the one that came since.
                if of.presence.get(agent).is_none_or(|p| p.session == session && p.instance == instance) {
                    of.presence.insert(agent, Presence { online: false, instance, session, at_ms: *at_ms });
                }
            }
            Note::Seen { instance, sessions, at_ms } => {
                for (agent, session) in sessions {
                    let seen = Presence { online: true, instance, session, at_ms: *at_ms };
                    let known = of.presence.entry(agent).or_insert(seen);
                    known.at_ms = known.at_ms.max(*at_ms);
                }
            }
            Note::Running { agent, invocation, at_ms } => of.running.push((invocation, agent, *at_ms)),
            Note::Plugin { agent, status } => {
                of.statuses.insert((agent, status.plugin.as_str()), status);
            }
            Note::Sample { agent, at_ms, sample } => of.samples.push((agent, *at_ms, sample)),
            Note::Audit(entry) => of.audit.push(entry),
        }
    }
    of
}

/// `[agent, online, instance, session, at_ms]`
pub(super) fn presence_list<'a>(
    presence: &'a BTreeMap<&'a AgentId, Presence<'a>>,
) -> Vec<(&'a AgentId, u8, &'a str, &'a str, u64)> {
    presence.iter().map(|(agent, p)| (*agent, u8::from(p.online), p.instance, p.session, p.at_ms)).collect()
}
