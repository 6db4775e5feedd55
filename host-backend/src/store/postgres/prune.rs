//! What is past its horizon goes, a bounded part at a time, so that the writer is never
//! held up for long.

use sqlx::PgConnection;

use super::rows::RowExt as _;
use super::{failed, int, receipts};
use crate::store::StoreError;
use crate::store::write::Horizon;

const ROWS: i64 = 5_000;
const COMMANDS: i64 = 100;

pub(super) async fn prune(conn: &mut PgConnection, horizon: &Horizon) -> Result<u64, StoreError> {
    let mut gone = 0;
    for (sql, before_ms) in [
        (
            "DELETE FROM telemetry WHERE (agent, at_ms) IN
                 (SELECT agent, at_ms FROM telemetry WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
            horizon.telemetry_ms,
        ),
        (
            "DELETE FROM telemetry_hours WHERE (agent, hour_ms) IN
                 (SELECT agent, hour_ms FROM telemetry_hours WHERE hour_ms < $1 ORDER BY hour_ms LIMIT $2)",
            horizon.hours_ms,
        ),
        (
            "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
            horizon.audit_ms,
        ),
    ] {
        let done = sqlx::query(sql).bind(int(before_ms)).bind(ROWS).execute(&mut *conn).await.map_err(failed)?;
        gone += done.rows_affected();
    }
    gone += receipts::prune(conn, horizon.receipts_ms, ROWS).await?;
    Ok(gone + commands(conn, horizon.commands_ms).await?)
}

/// Ended commands, their invocations first.
async fn commands(conn: &mut PgConnection, before_ms: u64) -> Result<u64, StoreError> {
    // Ids begin with their time (48 bits of milliseconds), so their order is the index.
    let before = format!("cmd-{:012x}", before_ms & 0xffff_ffff_ffff);
    let old = sqlx::query("SELECT n FROM commands WHERE id < $1 AND finished_ms IS NOT NULL ORDER BY id LIMIT $2")
        .bind(before)
        .bind(COMMANDS)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed)?;
    if old.is_empty() {
        return Ok(0);
    }
    let numbers: Vec<i64> = old.iter().map(|row| row.signed("n")).collect::<Result<_, _>>()?;
    let invocations = sqlx::query(
        "DELETE FROM invocations WHERE (command, ordinal) IN
             (SELECT command, ordinal FROM invocations WHERE command = ANY($1) LIMIT $2)",
    )
    .bind(&numbers)
    .bind(ROWS)
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    let commands = sqlx::query(
        "DELETE FROM commands WHERE n = ANY($1)
             AND NOT EXISTS (SELECT 1 FROM invocations WHERE command = n)",
    )
    .bind(&numbers)
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    Ok(invocations.rows_affected() + commands.rows_affected())
}
