//! Ends that nobody reported: found here under the commands' locks, decided by
//! [`crate::store::ends`].

use sqlx::PgConnection;
use std::collections::BTreeMap;
use viworks_protocol::id::CommandId;

use super::rows::RowExt as _;
use super::settle::{touch, write_ends};
use super::{failed, int};
use crate::store::StoreError;
use crate::store::ends::{self, COMMANDS_A_PASS, Due, INVOCATIONS_A_PASS, Texts};
use crate::store::write::{Cancelled, Expired};

/// When the store was restored from a backup last; 0 when it never was.
pub(super) async fn restored_ms(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT coalesce(max(at_ms), 0) AS at_ms FROM restores")
        .fetch_one(&mut *conn)
        .await
        .map_err(failed)?;
    row.number("at_ms")
}

pub(super) async fn expire(conn: &mut PgConnection, now_ms: u64, grace_ms: u64) -> Result<Expired, StoreError> {
    // Another instance may have been at them: looked at again once they are held.
    sqlx::query(
        "SELECT n FROM commands WHERE n IN
             (SELECT n FROM commands WHERE finished_ms IS NULL AND due_ms <= $1 ORDER BY due_ms LIMIT $2)
         ORDER BY n FOR NO KEY UPDATE",
    )
    .bind(int(now_ms))
    .bind(COMMANDS_A_PASS)
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    let due = sqlx::query(
        "SELECT n, created_ms, expires_ms, timeout_secs, last_seq FROM commands WHERE n IN
             (SELECT n FROM commands WHERE finished_ms IS NULL AND due_ms <= $1 ORDER BY due_ms LIMIT $2)
         ORDER BY n FOR NO KEY UPDATE",
    )
    .bind(int(now_ms))
    .bind(COMMANDS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    if due.is_empty() {
        return Ok(Expired::default());
    }
    let due = Due::of(&due, grace_ms, restored_ms(conn).await?, now_ms)?;
    let open = sqlx::query(
        "SELECT i.command, i.ordinal, i.state FROM jsonb_array_elements($1::jsonb) AS j (value)
         JOIN invocations AS i ON i.command = (j.value ->> 0)::bigint AND i.state = j.value ->> 1 LIMIT $2",
    )
    .bind(due.wanted()?)
    .bind(INVOCATIONS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let texts = Texts::new(now_ms)?;
    let ending = due.end(&open, &texts)?;
    write_ends(conn, &ending.ends).await?;
    let commands = touch(conn, &ending.deltas, now_ms).await?;
    Ok(Expired { commands, ..ending.out })
}

pub(super) async fn cancel(
    conn: &mut PgConnection,
    command: &CommandId,
    now_ms: u64,
) -> Result<Option<Cancelled>, StoreError> {
    let row = sqlx::query("SELECT n, created_ms, last_seq, finished_ms FROM commands WHERE id = $1 FOR NO KEY UPDATE")
        .bind(command.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let n = row.signed("n")?;
    let open = sqlx::query(
        "SELECT command, ordinal, state, id, agent FROM invocations
         WHERE command = $1 AND state IN ('queued', 'sent', 'running')",
    )
    .bind(n)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let texts = Texts::new(now_ms)?;
    let ends::Cancelling { ends, delta, in_flight } =
        ends::cancel(&row, &open, restored_ms(conn).await?, &texts, now_ms)?;
    write_ends(conn, &ends).await?;
    let settled = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let commands = touch(conn, &BTreeMap::from([(n, delta)]), now_ms).await?;
    Ok(commands.into_iter().next().map(|command| Cancelled { command, in_flight, settled }))
}
