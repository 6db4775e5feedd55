//! What is at which connected agent now: for slots, for progress, and for batches. It is
//! a view that may be lost; the store has the truth.

use std::collections::{HashMap, VecDeque};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

/// One invocation that an agent was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    pub invocation: InvocationId,
    pub command: CommandId,
}

/// A target that a batch has no room for yet.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub invocation: InvocationId,
    pub agent: AgentId,
    pub ordinal: u32,
}

#[derive(Debug, Default)]
struct Live {
    at_agents: u32,
    waiting: VecDeque<Waiting>,
    /// Not committed yet, but its slot is taken.
    reserved: bool,
}

#[derive(Debug)]
pub(super) struct Flights {
    slots: u32,
    by_agent: HashMap<AgentId, Vec<Flight>>,
    live: HashMap<CommandId, Live>,
}

impl Flights {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, by_agent: HashMap::new(), live: HashMap::new() }
    }

    /// Commands with work at connected agents.
    pub(super) fn active(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    /// Take a slot for a new command; `false` when all are taken.
    pub(super) fn reserve(&mut self, command: &CommandId) -> bool {
        if self.active() >= self.slots {
            return false;
        }
        self.live.insert(command.clone(), Live { reserved: true, ..Live::default() });
        true
    }

    /// The reservation becomes flights, or nothing.
    pub(super) fn release(&mut self, command: &CommandId) {
        if let Some(live) = self.live.get_mut(command) {
            live.reserved = false;
        }
        self.tidy(command);
    }

    pub(super) fn add(&mut self, agent: &AgentId, flight: Flight) {
        let flights = self.by_agent.entry(agent.clone()).or_default();
        if !flights.contains(&flight) {
            self.live.entry(flight.command.clone()).or_default().at_agents += 1;
            flights.push(flight);
        }
    }

    /// The command of an invocation that is at this very agent.
    pub(super) fn find(&self, agent: &AgentId, invocation: &InvocationId) -> Option<&CommandId> {
        self.by_agent.get(agent)?.iter().find(|f| f.invocation == *invocation).map(|f| &f.command)
    }

    pub(super) fn remove(&mut self, agent: &AgentId, invocation: &InvocationId) {
        let Some(flights) = self.by_agent.get_mut(agent) else { return };
        let Some(at) = flights.iter().position(|f| f.invocation == *invocation) else { return };
        let flight = flights.swap_remove(at);
        if flights.is_empty() {
            self.by_agent.remove(agent);
        }
        self.landed(&flight.command);
    }

    pub(super) fn drop_agent(&mut self, agent: &AgentId) {
        for flight in self.by_agent.remove(agent).unwrap_or_default() {
            self.landed(&flight.command);
        }
    }

    /// The command has ended: nothing of it is under way any more.
    pub(super) fn drop_command(&mut self, command: &CommandId) {
        if self.live.remove(command).is_some_and(|live| live.at_agents > 0) {
            self.by_agent.retain(|_, flights| {
                flights.retain(|f| f.command != *command);
                !flights.is_empty()
            });
        }
    }

    pub(super) fn wait(&mut self, command: &CommandId, waiting: impl IntoIterator<Item = Waiting>) {
        self.live.entry(command.clone()).or_default().waiting.extend(waiting);
        self.tidy(command);
    }

    /// The next ones that wait, at most `count`.
    pub(super) fn next(&mut self, command: &CommandId, count: usize) -> Vec<Waiting> {
        let Some(live) = self.live.get_mut(command) else { return Vec::new() };
        let count = count.min(live.waiting.len());
        let next = live.waiting.drain(..count).collect();
        self.tidy(command);
        next
    }

    fn landed(&mut self, command: &CommandId) {
        if let Some(live) = self.live.get_mut(command) {
            live.at_agents = live.at_agents.saturating_sub(1);
        }
        self.tidy(command);
    }

    fn tidy(&mut self, command: &CommandId) {
        if self.live.get(command).is_some_and(|l| l.at_agents == 0 && l.waiting.is_empty() && !l.reserved) {
            self.live.remove(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(command: &CommandId, n: u8) -> Flight {
        let Ok(invocation) = format!("inv-{n:032x}").parse() else { panic!("an id") };
        Flight { invocation, command: command.clone() }
    }

    #[test]
    fn slots_follow_what_is_at_connected_agents() {
        let (one, two) = (CommandId::new(1), CommandId::new(2));
        let (Ok(a), Ok(b)) = ("a".parse::<AgentId>(), "b".parse::<AgentId>()) else { panic!("ids") };
        let mut flights = Flights::new(1);
        assert!(flights.reserve(&one) && !flights.reserve(&two), "one slot");
        flights.add(&a, flight(&one, 1));
        flights.add(&b, flight(&one, 2));
        flights.add(&b, flight(&one, 2));
        flights.release(&one);
        assert_eq!(flights.active(), 1);
        assert_eq!(flights.find(&a, &flight(&one, 1).invocation), Some(&one));
        assert_eq!(flights.find(&b, &flight(&one, 1).invocation), None, "another agent's");
        flights.remove(&a, &flight(&one, 1).invocation);
        flights.remove(&a, &flight(&one, 1).invocation);
        assert_eq!(flights.active(), 1);
        flights.drop_agent(&b);
        assert!(flights.active() == 0 && flights.reserve(&two));
    }
}
