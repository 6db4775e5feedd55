//! What is at which connected agent now: for slots, for progress, and for batches. It is
//! a view that may be lost; the store has the truth.

use std::collections::{HashMap, HashSet, VecDeque};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

/// Invocations that one agent has at a time. More wait in the store: a gateway refuses
/// what its own queue can't hold, and what was refused has failed.
pub(super) const WINDOW: usize = 32;

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
    /// Its agents here were told that it is cancelled.
    cancelled: bool,
}

#[derive(Debug, Default)]
struct AtAgent {
    flights: Vec<Flight>,
    /// Accepted while it was full; these hold their commands' slots too.
    queued: Vec<Flight>,
    /// More is owed than it had room for.
    behind: bool,
}

impl AtAgent {
    fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.queued.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Flights {
    slots: u32,
    by_agent: HashMap<AgentId, AtAgent>,
    live: HashMap<CommandId, Live>,
    /// Every invocation that waits for a batch: none waits twice.
    waiting: HashSet<InvocationId>,
}

impl Flights {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, by_agent: HashMap::new(), live: HashMap::new(), waiting: HashSet::new() }
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
        let at = self.by_agent.entry(agent.clone()).or_default();
        if at.flights.contains(&flight) {
            return;
        }
        let live = self.live.entry(flight.command.clone()).or_default();
        live.cancelled = false;
        if let Some(place) = at.queued.iter().position(|f| *f == flight) {
            at.queued.swap_remove(place);
        } else {
            live.at_agents += 1;
        }
        at.flights.push(flight);
    }

    /// One more for a connected agent that has no room.
    pub(super) fn queue(&mut self, agent: &AgentId, flight: Flight) {
        self.live.entry(flight.command.clone()).or_default().at_agents += 1;
        let at = self.by_agent.entry(agent.clone()).or_default();
        at.behind = true;
        at.queued.push(flight);
    }

    /// Whether the agent may have one more. If not, it is behind from now on.
    pub(super) fn has_room(&mut self, agent: &AgentId) -> bool {
        let Some(at) = self.by_agent.get_mut(agent) else { return true };
        let room = at.flights.len() < WINDOW;
        at.behind |= !room;
        room
    }

    /// The command of an invocation that is at this very agent.
    pub(super) fn find(&self, agent: &AgentId, invocation: &InvocationId) -> Option<&CommandId> {
        self.by_agent.get(agent)?.flights.iter().find(|f| f.invocation == *invocation).map(|f| &f.command)
    }

    /// It is there no more. Answers whether the agent is owed more and has room again.
    pub(super) fn remove(&mut self, agent: &AgentId, invocation: &InvocationId) -> bool {
        let Some(at) = self.by_agent.get_mut(agent) else { return false };
        let Some(place) = at.flights.iter().position(|f| f.invocation == *invocation) else { return false };
        let flight = at.flights.swap_remove(place);
        // Half empty, so that catching up costs a query for many and not for each.
        let catch_up = at.behind && at.flights.len() <= WINDOW / 2;
        at.behind &= !catch_up;
        if at.is_empty() {
            self.by_agent.remove(agent);
        }
        self.landed(&flight.command);
        catch_up
    }

    pub(super) fn drop_agent(&mut self, agent: &AgentId) {
        let Some(at) = self.by_agent.remove(agent) else { return };
        for flight in at.flights.iter().chain(&at.queued) {
            self.landed(&flight.command);
        }
    }

    /// The command has ended: nothing of it is under way any more. Answers the agents
    /// that are owed more and have room again.
    pub(super) fn drop_command(&mut self, command: &CommandId) -> Vec<AgentId> {
        let mut free = Vec::new();
        let Some(live) = self.live.remove(command) else { return free };
        for waiting in &live.waiting {
            self.waiting.remove(&waiting.invocation);
        }
        if live.at_agents > 0 {
            self.by_agent.retain(|agent, at| {
                at.flights.retain(|f| f.command != *command);
                at.queued.retain(|f| f.command != *command);
                if at.behind && at.flights.len() <= WINDOW / 2 {
                    at.behind = false;
                    free.push(agent.clone());
                }
                !at.is_empty()
            });
        }
        free
    }

    pub(super) fn wait(&mut self, command: &CommandId, waiting: Waiting) {
        if self.waiting.insert(waiting.invocation.clone()) {
            self.live.entry(command.clone()).or_default().waiting.push_back(waiting);
        }
    }

    /// The same for many of a new command.
    pub(super) fn wait_all(&mut self, command: &CommandId, waiting: Vec<Waiting>) {
        for one in waiting {
            self.wait(command, one);
        }
        self.tidy(command);
    }

    /// The next ones that wait, at most `count`.
    pub(super) fn next(&mut self, command: &CommandId, count: usize) -> Vec<Waiting> {
        let Some(live) = self.live.get_mut(command) else { return Vec::new() };
        let count = count.min(live.waiting.len());
        let next: Vec<Waiting> = live.waiting.drain(..count).collect();
        for waiting in &next {
            self.waiting.remove(&waiting.invocation);
        }
        self.tidy(command);
        next
    }

    /// Commands with work here, or waiting.
    pub(super) fn commands(&self) -> Vec<CommandId> {
        self.live.keys().cloned().collect()
    }

    pub(super) fn has(&self, command: &CommandId) -> bool {
        self.live.contains_key(command)
    }

    /// Whether some of the command wait for its batch here.
    pub(super) fn awaits(&self, command: &CommandId) -> bool {
        self.live.get(command).is_some_and(|live| !live.waiting.is_empty())
    }

    /// Whether it waits for its batch here.
    pub(super) fn waits(&self, invocation: &InvocationId) -> bool {
        self.waiting.contains(invocation)
    }

    /// The command is cancelled: what waits is dropped. Answers where it is, once.
    pub(super) fn cancel(&mut self, command: &CommandId) -> Vec<(AgentId, InvocationId)> {
        drop(self.next(command, usize::MAX));
        match self.live.get_mut(command) {
            Some(live) if !live.cancelled => live.cancelled = true,
            _ => return Vec::new(),
        }
        let of = |(agent, at): (&AgentId, &AtAgent)| {
            let flights = at.flights.iter().filter(|f| f.command == *command);
            flights.map(|f| (agent.clone(), f.invocation.clone())).collect::<Vec<_>>()
        };
        self.by_agent.iter().flat_map(of).collect()
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

    #[test]
    fn an_agent_has_a_window_and_catches_up_when_half_of_it_is_free() {
        let command = CommandId::new(1);
        let Ok(a) = "a".parse::<AgentId>() else { panic!("an id") };
        let mut flights = Flights::new(1);
        for n in 0..WINDOW as u8 {
            assert!(flights.has_room(&a));
            flights.add(&a, flight(&command, n));
        }
        assert!(!flights.has_room(&a));
        flights.queue(&a, flight(&command, 99));
        let told: Vec<_> = (0..WINDOW as u8).filter(|n| flights.remove(&a, &flight(&command, *n).invocation)).collect();
        assert_eq!(told, [(WINDOW / 2) as u8 - 1], "once");
        assert_eq!(flights.active(), 1, "what waits for room holds its slot");
        flights.add(&a, flight(&command, 99));
        flights.remove(&a, &flight(&command, 99).invocation);
        assert_eq!(flights.active(), 0);
    }
}
