//! Invocations reach their ends, many commands' and agents' at once, in a fixed number of
//! statements; counts are moved with them. Refuses an invocation of another agent, and
//! to settle one twice.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::{BTreeMap, HashSet};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::json;
use super::receipts::{self, insert_receipts};
use super::rows::{self, RowExt as _};
use crate::store::StoreError;
use crate::store::model::{Command, CommandState, Counts, InvocationState};
use crate::store::receipt::NewReceipt;
use crate::store::write::{Settled, Settlement, Verdict};

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

macro_rules! move_counts {
    ($changes:literal) => {
        concat!(
            "UPDATE commands SET state = j.value ->> 1, finished_ms = j.value ->> 2, last_seq = j.value ->> 3,
                 cancel_requested = j.value ->> 4, due_ms = coalesce(j.value ->> 5, due_ms), queued = j.value ->> 6,
                 sent = j.value ->> 7, running = j.value ->> 8, succeeded = j.value ->> 9, failed = j.value ->> 10,
                 denied = j.value ->> 11, cancelled = j.value ->> 12, expired = j.value ->> 13,
                 unknown = j.value ->> 14
             FROM json_each(",
            $changes,
            ") AS j WHERE n = j.value ->> 0"
        )
    };
}

macro_rules! write_ends {
    () => {
        "UPDATE invocations SET state = j.value ->> 2, seq = j.value ->> 3, report = j.value ->> 4,
             started_ms = coalesce(j.value ->> 5, started_ms), finished_ms = j.value ->> 6, plan = j.value ->> 7
         FROM json_each(?1) AS j
         WHERE invocations.command = j.value ->> 0 AND invocations.ordinal = j.value ->> 1"
    };
}

/// So few settlements bring their commands along, which saves a way to the engine's thread
/// and back; more would bring one command many times.
const FEW: usize = 4;

macro_rules! find {
    ($columns:literal) => {
        concat!(
            "SELECT j.key AS place, i.command, i.ordinal, i.agent, i.state AS was, i.seq, ",
            $columns,
            " FROM json_each(?1) AS j
             CROSS JOIN invocations AS i ON i.id = j.value
             CROSS JOIN commands AS c ON c.n = i.command
             ORDER BY j.key"
        )
    };
}

const FIND: &str = find!("c.id, c.last_seq");
const FIND_WITH_COMMANDS: &str = find!("c.*");

const MOVE_COUNTS: &str = move_counts!("?1");
const WRITE_ENDS: &str = write_ends!();
const SETTLE: &str = concat!(write_ends!(), "; ", move_counts!("?2"), "; ", insert_receipts!("?3"));
const SETTLE_ALONE: &str =
    concat!("BEGIN IMMEDIATE; ", write_ends!(), "; ", move_counts!("?2"), "; ", insert_receipts!("?3"), "; COMMIT");

/// Move the counts of commands and, with them, their states; answers the commands.
pub(super) async fn touch(
    conn: &mut SqliteConnection,
    deltas: &BTreeMap<i64, Delta>,
    now_ms: u64,
) -> Result<Vec<Command>, StoreError> {
    let rows = command_rows(conn, deltas).await?;
    let (commands, changes) = moved(&rows, deltas, now_ms)?;
    if !commands.is_empty() {
        sqlx::query(MOVE_COUNTS).bind(changes).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    }
    Ok(commands)
}

async fn command_rows(
    conn: &mut SqliteConnection,
    deltas: &BTreeMap<i64, Delta>,
) -> Result<Vec<SqliteRow>, StoreError> {
    if deltas.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query("SELECT * FROM commands WHERE n IN (SELECT value FROM json_each(?1))")
        .bind(json(&deltas.keys().collect::<Vec<_>>())?)
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::Statement)
}

/// The commands as they will be, and what [`MOVE_COUNTS`] makes of them. A command may be
/// in several rows.
fn moved(rows: &[SqliteRow], deltas: &BTreeMap<i64, Delta>, now_ms: u64) -> Result<(Vec<Command>, String), StoreError> {
    let (mut commands, mut changes) = (Vec::with_capacity(deltas.len()), Vec::with_capacity(deltas.len()));
    let mut done = HashSet::new();
    for row in rows {
        let n: i64 = row.try_get("n").map_err(StoreError::Statement)?;
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

/// Write the ends. The counts are moved by [`touch`].
pub(super) async fn write_ends(conn: &mut SqliteConnection, ends: &[End<'_>]) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    sqlx::query(WRITE_ENDS).bind(end_list(ends)?).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    Ok(())
}

fn end_list(ends: &[End<'_>]) -> Result<String, StoreError> {
    let list: Vec<_> = ends
        .iter()
        .map(|e| (e.command, e.ordinal, e.state.as_str(), e.seq, e.report, e.started_ms, e.finished_ms, e.plan))
        .collect();
    json(&list)
}

/// Settle what is not settled yet. `alone`: in a transaction of its own, committed here;
/// reading first needs none, since nobody else writes.
pub(super) async fn settle(
    conn: &mut SqliteConnection,
    settlements: &[Settlement],
    alone: bool,
) -> Result<Settled, StoreError> {
    let keys: Vec<_> = settlements.iter().map(|s| &s.invocation).collect();
    let few = settlements.len() <= FEW;
    let found = sqlx::query(if few { FIND_WITH_COMMANDS } else { FIND })
        .bind(json(&keys)?)
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;

    let mut verdicts = vec![Verdict::Absent; settlements.len()];
    let (mut ends, mut deltas) = (Vec::with_capacity(found.len()), BTreeMap::<i64, Delta>::new());
    let mut taken = HashSet::new();
    let mut came = Vec::new();
    let mut now_ms = 0;
    for row in &found {
        let place = usize::try_from(row.number("place")?).unwrap_or(usize::MAX);
        let Some(settlement) = settlements.get(place) else { continue };
        if row.text("agent")? != settlement.agent.as_str() {
            verdicts[place] = Verdict::Foreign;
            continue;
        }
        let command: i64 = row.try_get("command").map_err(StoreError::Statement)?;
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
    let rows = if few { found } else { command_rows(conn, &deltas).await? };
    let (commands, changes) = moved(&rows, &deltas, now_ms)?;
    if !ends.is_empty() {
        sqlx::query(if alone { SETTLE_ALONE } else { SETTLE })
            .bind(end_list(&ends)?)
            .bind(changes)
            .bind(receipt_list(&came)?)
            .execute(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
    }
    Ok(Settled { verdicts, commands })
}

fn receipt_list(came: &[(&Settlement, CommandId, &NewReceipt)]) -> Result<String, StoreError> {
    let rows: Vec<_> = came
        .iter()
        .map(|(s, command, new)| receipts::row(&s.agent, command.as_str(), s.invocation.as_str(), s.finished_ms, new))
        .collect();
    json(&rows)
}

/// Gateways have journaled these: they run. Only an agent's own, and only from `sent`.
pub(super) async fn running(
    conn: &mut SqliteConnection,
    accepted: &[(&InvocationId, &AgentId, u64)],
) -> Result<(), StoreError> {
    let moved = sqlx::query(
        "UPDATE invocations SET state = 'running', started_ms = j.value ->> 2
         FROM json_each(?1) AS j
         WHERE invocations.id = j.value ->> 0 AND invocations.agent = j.value ->> 1 AND invocations.state = 'sent'
         RETURNING command",
    )
    .bind(json(&accepted)?)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    for row in &moved {
        let command = row.try_get("command").map_err(StoreError::Statement)?;
        deltas.entry(command).or_default().moved(InvocationState::Sent, InvocationState::Running);
    }
    let now_ms = accepted.iter().map(|(_, _, at)| *at).max().unwrap_or(0);
    touch(conn, &deltas, now_ms).await?;
    Ok(())
}
