//! Invocations reach their ends, many commands' and agents' at once, in a fixed number of
//! statements; counts are moved with them. Refuses an invocation of another agent, and
//! to settle one twice.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeMap;
use viworks_protocol::id::{AgentId, InvocationId};

use super::json;
use super::receipts::insert_receipts;
use super::rows::command_columns;
use crate::store::model::{Command, InvocationState};
use crate::store::moves::{Delta, End, Judged, end_list, judge, moved};
use crate::store::write::{Settled, Settlement};
use crate::store::{StoreError, lists};

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

macro_rules! find_of {
    () => {
        " FROM json_each(?1) AS j
             CROSS JOIN invocations AS i ON i.id = j.value
             CROSS JOIN commands AS c ON c.n = i.command
             ORDER BY j.key"
    };
}

macro_rules! find {
    () => {
        "SELECT j.key AS place, i.command, i.ordinal, i.agent, i.state AS was, i.seq, "
    };
}

const FIND: &str = concat!(find!(), "c.id, c.last_seq", find_of!());
const FIND_WITH_COMMANDS: &str = concat!(find!(), command_columns!(), find_of!());

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
    sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands AS c WHERE c.n IN (SELECT value FROM json_each(?1))"
    ))
    .bind(json(&deltas.keys().collect::<Vec<_>>())?)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)
}

/// Write the ends. The counts are moved by [`touch`].
pub(super) async fn write_ends(conn: &mut SqliteConnection, ends: &[End<'_>]) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    sqlx::query(WRITE_ENDS).bind(end_list(ends)?).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    Ok(())
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

    let Judged { verdicts, ends, deltas, came, now_ms } = judge(&found, settlements)?;
    let rows = if few { found } else { command_rows(conn, &deltas).await? };
    let (commands, changes) = moved(&rows, &deltas, now_ms)?;
    if !ends.is_empty() {
        sqlx::query(if alone { SETTLE_ALONE } else { SETTLE })
            .bind(end_list(&ends)?)
            .bind(changes)
            .bind(lists::receipts(&came)?)
            .execute(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
    }
    Ok(Settled { verdicts, commands })
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
