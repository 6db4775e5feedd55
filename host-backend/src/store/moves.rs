//! What a change to invocations does to their commands: states, kept counts, the order of
//! ends, and what ends by itself. No SQL: both engines find rows, ask here, and write.

use std::collections::{BTreeMap, HashSet};
use viworks_protocol::id::CommandId;

use super::StoreError;
use super::lists::json;
use super::model::{Command, CommandState, Counts, InvocationState};
use super::receipt::NewReceipt;
use super::rows::{self, RowExt};
use super::write::{Settlement, Verdict};

/// How the counts of one command move.
#[derive(Debug, Default)]
pub(super) struct Delta {
    moves: BTreeMap<(InvocationState, InvocationState), u32>,
    last_seq: Option<u64>,
    due_ms: Option<u64>,
    cancel: bool,
}

impl Delta {
    pub(super) fn moved(&mut self, from: InvocationState, to: InvocationState) {
        *self.moves.entry((from, to)).or_default() += 1;
    }

    pub(super) fn settled(&mut self, from: InvocationState, to: InvocationState, seq: u64) {
        self.moved(from, to);
        self.last_seq = Some(seq);
    }

    pub(super) fn due(&mut self, at_ms: u64) {
        self.due_ms = Some(at_ms);
    }

    pub(super) fn cancel(&mut self) {
        self.cancel = true;
    }
}

/// One invocation's end, found and numbered.
pub(super) struct End<'a> {
    pub command: i64,
    pub ordinal: i64,
    pub state: InvocationState,
    pub seq: u64,
    pub report: &'a str,
    /// The digest of its plan, if it made one.
    pub plan: Option<&'a str>,
    pub started_ms: Option<u64>,
    pub finished_ms: u64,
}

fn count(counts: &mut Counts, state: InvocationState) -> &mut u32 {
    match state {
        InvocationState::Queued => &mut counts.queued,
        InvocationState::Sent => &mut counts.sent,
        InvocationState::Running => &mut counts.running,
        InvocationState::Succeeded => &mut counts.succeeded,
        InvocationState::Failed => &mut counts.failed,
        InvocationState::Denied => &mut counts.denied,
        InvocationState::Cancelled => &mut counts.cancelled,
        InvocationState::Expired => &mut counts.expired,
        InvocationState::Unknown => &mut counts.unknown,
    }
}

fn state_of(command: &Command) -> CommandState {
    let counts = &command.counts;
    match () {
        () if counts.open() > 0 && command.is_awaiting() => CommandState::AwaitingApproval,
        () if counts.open() > 0 && counts.queued == command.targets => CommandState::Queued,
        () if counts.open() > 0 => CommandState::Running,
        () if counts.cancelled == command.targets => CommandState::Cancelled,
        () if counts.expired == command.targets => CommandState::Expired,
        () => CommandState::Finished,
    }
}

/// The commands as they will be, and what the engine makes of them, each
/// `[n, state, finished_ms, last_seq, cancel_requested, due_ms, counts…]`. A command may be
/// in several rows.
pub(super) fn moved<R: RowExt>(
    rows: &[R],
    deltas: &BTreeMap<i64, Delta>,
    now_ms: u64,
) -> Result<(Vec<Command>, String), StoreError> {
    let (mut commands, mut changes) = (Vec::with_capacity(deltas.len()), Vec::with_capacity(deltas.len()));
    let mut done = HashSet::new();
    for row in rows {
        let n = row.signed("n")?;
        let Some(delta) = deltas.get(&n).filter(|_| done.insert(n)) else { continue };
        let mut command = rows::command(row)?;
        for ((from, to), moved) in &delta.moves {
            let left = count(&mut command.counts, *from);
            *left = left.saturating_sub(*moved);
            *count(&mut command.counts, *to) += moved;
        }
        command.last_seq = delta.last_seq.unwrap_or(command.last_seq);
        command.cancel_requested |= delta.cancel;
        command.state = state_of(&command);
        if command.counts.open() == 0 && command.finished_ms.is_none() {
            command.finished_ms = Some(now_ms);
        }
        let c = &command.counts;
        changes.push(serde_json::json!([
            n,
            command.state.as_str(),
            command.finished_ms,
            command.last_seq,
            u8::from(command.cancel_requested),
            delta.due_ms,
            c.queued,
            c.sent,
            c.running,
            c.succeeded,
            c.failed,
            c.denied,
            c.cancelled,
            c.expired,
            c.unknown
        ]));
        commands.push(command);
    }
    Ok((commands, json(&changes)?))
}

/// `[command, ordinal, state, seq, report, started_ms, finished_ms, plan]`
pub(super) fn end_list(ends: &[End<'_>]) -> Result<String, StoreError> {
    let list: Vec<_> = ends
        .iter()
        .map(|e| (e.command, e.ordinal, e.state.as_str(), e.seq, e.report, e.started_ms, e.finished_ms, e.plan))
        .collect();
    json(&list)
}

/// What is to be written for settlements, and what each came to.
pub(super) struct Judged<'a> {
    pub verdicts: Vec<Verdict>,
    pub ends: Vec<End<'a>>,
    pub deltas: BTreeMap<i64, Delta>,
    pub came: Vec<(&'a Settlement, CommandId, &'a NewReceipt)>,
    pub now_ms: u64,
}

/// Rows: `place` of the settlement, the invocation's `command`, `ordinal`, `agent`, state
/// (`was`) and `seq`, the command's `id` and `last_seq`; those that are not there are absent.
pub(super) fn judge<'a, R: RowExt>(found: &[R], settlements: &'a [Settlement]) -> Result<Judged<'a>, StoreError> {
    let mut verdicts = vec![Verdict::Absent; settlements.len()];
    let (mut ends, mut deltas) = (Vec::with_capacity(found.len()), BTreeMap::<i64, Delta>::new());
    let mut taken = HashSet::new();
    let mut came = Vec::new();
    let mut now_ms = 0;
    for row in found {
        let place = usize::try_from(row.number("place")?).unwrap_or(usize::MAX);
        let Some(settlement) = settlements.get(place) else { continue };
        if row.text("agent")? != settlement.agent.as_str() {
            verdicts[place] = Verdict::Foreign;
            continue;
        }
        let command = row.signed("command")?;
        let id: CommandId = row.parsed("id")?;
        if row.maybe_number("seq")?.is_some() || !taken.insert(&settlement.invocation) {
            verdicts[place] = Verdict::Duplicate { command: id };
            continue;
        }
        let ordinal = row.small("ordinal")?;
        let delta = deltas.entry(command).or_default();
        let seq = delta.last_seq.unwrap_or(row.number("last_seq")?) + 1;
        delta.settled(row.parsed("was")?, settlement.state, seq);
        ends.push(End {
            command,
            ordinal: i64::from(ordinal),
            state: settlement.state,
            seq,
            report: &settlement.report,
            plan: settlement.plan.as_deref(),
            started_ms: settlement.started_ms,
            finished_ms: settlement.finished_ms,
        });
        now_ms = now_ms.max(settlement.finished_ms);
        if let Some(receipt) = &settlement.receipt {
            came.push((settlement, id.clone(), &**receipt));
        }
        verdicts[place] = Verdict::Settled { command: id, ordinal, seq };
    }
    Ok(Judged { verdicts, ends, deltas, came, now_ms })
}
