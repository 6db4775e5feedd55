//! Invocations reach their ends, many commands' and agents' at once, in a fixed number of
//! statements. The commands' rows are held before anything is read of them, so that two
//! instances number ends one after the other.

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;
use viworks_protocol::id::{AgentId, InvocationId};

use super::rows::{RowExt as _, command_columns};
use super::{failed, json, list};
use crate::store::model::{Command, InvocationState};
use crate::store::moves::{Delta, End, Judged, end_list, judge, moved};
use crate::store::write::{Settled, Settlement};
use crate::store::{StoreError, lists};

macro_rules! move_counts {
    ($changes:literal) => {
        concat!(
            "UPDATE commands SET state = j.value ->> 1, finished_ms = (j.value ->> 2)::bigint,
                 last_seq = (j.value ->> 3)::bigint, cancel_requested = (j.value ->> 4)::bigint,
                 due_ms = coalesce((j.value ->> 5)::bigint, due_ms), queued = (j.value ->> 6)::bigint,
                 sent = (j.value ->> 7)::bigint, running = (j.value ->> 8)::bigint,
                 succeeded = (j.value ->> 9)::bigint, failed = (j.value ->> 10)::bigint,
                 denied = (j.value ->> 11)::bigint, cancelled = (j.value ->> 12)::bigint,
                 expired = (j.value ->> 13)::bigint, unknown = (j.value ->> 14)::bigint
             FROM jsonb_array_elements(",
            $changes,
            "::jsonb) AS j (value) WHERE n = (j.value ->> 0)::bigint"
        )
    };
}

macro_rules! write_ends {
    () => {
        "UPDATE invocations SET state = j.value ->> 2, seq = (j.value ->> 3)::bigint, report = j.value ->> 4,
             started_ms = coalesce((j.value ->> 5)::bigint, started_ms), finished_ms = (j.value ->> 6)::bigint,
             plan = j.value ->> 7
         FROM jsonb_array_elements($1::jsonb) AS j (value)
         WHERE invocations.command = (j.value ->> 0)::bigint AND invocations.ordinal = (j.value ->> 1)::bigint"
    };
}

const FIND: &str = "SELECT j.place - 1 AS place, i.command, i.ordinal, i.agent, i.state AS was, i.seq, c.id, c.last_seq
    FROM unnest($1::text[]) WITH ORDINALITY AS j (id, place)
    JOIN invocations AS i ON i.id = j.id JOIN commands AS c ON c.n = i.command ORDER BY j.place";

const SETTLE: &str = concat!(
    "WITH ended AS (",
    write_ends!(),
    "), counted AS (",
    move_counts!("$2"),
    "), proved AS (INSERT INTO receipts (agent, chain, seq, sha256, prev, boot, command, invocation, at_ms, fault,
         walked, envelope)
     SELECT j.value ->> 0, j.value ->> 1, (j.value ->> 2)::bigint, j.value ->> 3, j.value ->> 4, j.value ->> 5,
         j.value ->> 6, j.value ->> 7, (j.value ->> 8)::bigint, j.value ->> 9, (j.value ->> 10)::bigint, j.value ->> 11
     FROM jsonb_array_elements($3::jsonb) AS j (value) ON CONFLICT DO NOTHING) SELECT 1"
);

/// Move the counts of commands, whose rows are held, and with them their states.
pub(super) async fn touch(
    conn: &mut PgConnection,
    deltas: &BTreeMap<i64, Delta>,
    now_ms: u64,
) -> Result<Vec<Command>, StoreError> {
    let rows = command_rows(conn, deltas).await?;
    let (commands, changes) = moved(&rows, deltas, now_ms)?;
    if !commands.is_empty() {
        sqlx::query(move_counts!("$1")).bind(changes).execute(&mut *conn).await.map_err(failed)?;
    }
    Ok(commands)
}

async fn command_rows(conn: &mut PgConnection, deltas: &BTreeMap<i64, Delta>) -> Result<Vec<PgRow>, StoreError> {
    if deltas.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query(concat!("SELECT ", command_columns!(), " FROM commands AS c WHERE c.n = ANY($1)"))
        .bind(deltas.keys().copied().collect::<Vec<i64>>())
        .fetch_all(&mut *conn)
        .await
        .map_err(failed)
}

/// Write the ends. The counts are moved by [`touch`].
pub(super) async fn write_ends(conn: &mut PgConnection, ends: &[End<'_>]) -> Result<(), StoreError> {
    if !ends.is_empty() {
        sqlx::query(write_ends!()).bind(stored_ends(ends)?).execute(&mut *conn).await.map_err(failed)?;
    }
    Ok(())
}

/// Reports are JSON inside the list's JSON, and are read as such later: both lose NUL.
fn stored_ends(ends: &[End<'_>]) -> Result<String, StoreError> {
    if ends.iter().all(|end| !end.report.contains("\\u0000")) {
        return end_list(ends);
    }
    let reports: Vec<String> = ends.iter().map(|end| list(end.report.to_owned())).collect();
    let clean: Vec<End<'_>> = ends.iter().zip(&reports).map(|(end, report)| End { report, ..*end }).collect();
    end_list(&clean)
}

/// Settle what is not settled yet.
pub(super) async fn settle(conn: &mut PgConnection, settlements: &[Settlement]) -> Result<Settled, StoreError> {
    let ids: Vec<&str> = settlements.iter().map(|s| s.invocation.as_str()).collect();
    let found = sqlx::query(FIND).bind(ids).fetch_all(&mut *conn).await.map_err(failed)?;
    let Judged { verdicts, ends, deltas, came, now_ms } = judge(&found, settlements)?;
    let rows = command_rows(conn, &deltas).await?;
    let (commands, changes) = moved(&rows, &deltas, now_ms)?;
    if !ends.is_empty() {
        sqlx::query(SETTLE)
            .bind(stored_ends(&ends)?)
            .bind(changes)
            .bind(list(lists::receipts(&came)?))
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
    }
    Ok(Settled { verdicts, commands })
}

/// Gateways have journaled these: they run. Only an agent's own, and only from `sent`.
pub(super) async fn running(
    conn: &mut PgConnection,
    accepted: &[(&InvocationId, &AgentId, u64)],
) -> Result<(), StoreError> {
    let moved = sqlx::query(
        "UPDATE invocations SET state = 'running', started_ms = (j.value ->> 2)::bigint
         FROM jsonb_array_elements($1::jsonb) AS j (value)
         WHERE invocations.id = j.value ->> 0 AND invocations.agent = j.value ->> 1 AND invocations.state = 'sent'
         RETURNING invocations.command",
    )
    .bind(json(&accepted)?)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    for row in &moved {
        deltas.entry(row.signed("command")?).or_default().moved(InvocationState::Sent, InvocationState::Running);
    }
    let now_ms = accepted.iter().map(|(_, _, at)| *at).max().unwrap_or(0);
    touch(conn, &deltas, now_ms).await?;
    Ok(())
}
