//! Ends that nobody reported: found here, decided by [`crate::store::ends`].

use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use viworks_protocol::id::CommandId;

use super::int;
use super::rows::RowExt as _;
use super::settle::{touch, write_ends};
use crate::store::StoreError;
use crate::store::ends::{self, COMMANDS_A_PASS, Due, INVOCATIONS_A_PASS, Texts};
use crate::store::write::{Cancelled, Expired};

/// When the store was restored from a backup last; 0 when it never was.
pub(super) async fn restored_ms(conn: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT coalesce(max(at_ms), 0) AS at_ms FROM restores")
        .fetch_one(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    row.number("at_ms")
}

pub(super) async fn expire(conn: &mut SqliteConnection, now_ms: u64, grace_ms: u64) -> Result<Expired, StoreError> {
    let due = sqlx::query(
        "SELECT n, created_ms, expires_ms, timeout_secs, last_seq FROM commands
         WHERE finished_ms IS NULL AND due_ms <= ?1 ORDER BY due_ms LIMIT ?2",
    )
    .bind(int(now_ms))
    .bind(COMMANDS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if due.is_empty() {
        return Ok(Expired::default());
    }
    let due = Due::of(&due, grace_ms, restored_ms(conn).await?, now_ms)?;
    let open = sqlx::query(
        "SELECT i.command, i.ordinal, i.state FROM json_each(?1) AS j
         CROSS JOIN invocations AS i ON i.command = j.value ->> 0 AND i.state = j.value ->> 1 LIMIT ?2",
    )
    .bind(due.wanted()?)
    .bind(INVOCATIONS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let texts = Texts::new(now_ms)?;
    let ending = due.end(&open, &texts)?;
    write_ends(conn, &ending.ends).await?;
    let commands = touch(conn, &ending.deltas, now_ms).await?;
    Ok(Expired { commands, ..ending.out })
}

pub(super) async fn cancel(
    conn: &mut SqliteConnection,
    command: &CommandId,
    now_ms: u64,
) -> Result<Option<Cancelled>, StoreError> {
    let row = sqlx::query("SELECT n, created_ms, last_seq, finished_ms FROM commands WHERE id = ?1")
        .bind(command.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let Some(row) = row else { return Ok(None) };
    let n = row.signed("n")?;
    let open = sqlx::query(
        "SELECT command, ordinal, state, id, agent FROM invocations
         WHERE command = ?1 AND state IN ('queued', 'sent', 'running')",
    )
    .bind(n)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let texts = Texts::new(now_ms)?;
    let ends::Cancelling { ends, delta, in_flight } =
        ends::cancel(&row, &open, restored_ms(conn).await?, &texts, now_ms)?;
    write_ends(conn, &ends).await?;
    let settled = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let commands = touch(conn, &BTreeMap::from([(n, delta)]), now_ms).await?;
    Ok(commands.into_iter().next().map(|command| Cancelled { command, in_flight, settled }))
}
