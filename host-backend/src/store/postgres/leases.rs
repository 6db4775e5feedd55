//! Leases: which instances live, and what one of them does for all; by the database's
//! clock, so that no instance's own matters.

use sqlx::PgConnection;
use viworks_protocol::id::AgentId;

use super::rows::RowExt as _;
use super::{failed, int};
use crate::store::StoreError;
use crate::store::write::Beat;

macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

pub(super) async fn lease(conn: &mut PgConnection, name: &str, holder: &str, ttl_ms: u64) -> Result<bool, StoreError> {
    let done = sqlx::query(concat!(
        "INSERT INTO leases (name, holder, lease_ms) VALUES ($1, $2, ",
        now_ms!(),
        " + $3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_ms = excluded.lease_ms
         WHERE leases.holder = excluded.holder OR leases.lease_ms <= ",
        now_ms!()
    ))
    .bind(name)
    .bind(holder)
    .bind(int(ttl_ms))
    .execute(conn)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn give_up(conn: &mut PgConnection, name: &str, holder: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2")
        .bind(name)
        .bind(holder)
        .execute(conn)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn beat(conn: &mut PgConnection, instance: &str, ttl_ms: u64) -> Result<Beat, StoreError> {
    let held = sqlx::query("SELECT 1::bigint AS held FROM instances WHERE id = $1")
        .bind(instance)
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed)?;
    sqlx::query(concat!(
        "INSERT INTO instances (id, started_ms, lease_ms) VALUES ($1, ",
        now_ms!(),
        ", ",
        now_ms!(),
        " + $2) ON CONFLICT (id) DO UPDATE SET lease_ms = excluded.lease_ms"
    ))
    .bind(instance)
    .bind(int(ttl_ms))
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    // Another instance that finds the same is left to it.
    let dead = sqlx::query(concat!(
        "DELETE FROM instances WHERE id IN (SELECT id FROM instances WHERE id <> $1 AND lease_ms <= ",
        now_ms!(),
        " FOR UPDATE SKIP LOCKED) RETURNING id"
    ))
    .bind(instance)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let dead: Vec<String> = dead.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
    let orphaned = orphan(conn, &dead).await?;
    let living =
        sqlx::query("SELECT id FROM instances ORDER BY id LIMIT 1000").fetch_all(&mut *conn).await.map_err(failed)?;
    let living = living.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
    Ok(Beat { fresh: held.is_none(), living, dead, orphaned })
}

/// Agents whose instance is gone have no session.
async fn orphan(conn: &mut PgConnection, dead: &[String]) -> Result<Vec<AgentId>, StoreError> {
    if dead.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("UPDATE agents SET online = 0 WHERE online = 1 AND instance = ANY($1) RETURNING id")
        .bind(dead)
        .fetch_all(conn)
        .await
        .map_err(failed)?;
    let mut agents: Vec<AgentId> = rows.iter().map(|row| row.parsed("id")).collect::<Result<_, _>>()?;
    agents.sort();
    Ok(agents)
}

/// Only sessions of other instances that live are left.
pub(super) async fn all_offline(conn: &mut PgConnection, instance: &str) -> Result<bool, StoreError> {
    let done = sqlx::query(concat!(
        "UPDATE agents SET online = 0 WHERE online = 1 AND (instance IS NULL OR instance = $1
             OR instance NOT IN (SELECT id FROM instances WHERE lease_ms > ",
        now_ms!(),
        "))"
    ))
    .bind(instance)
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() > 0)
}

/// The instance goes: its lease and its sessions end.
pub(super) async fn leave(conn: &mut PgConnection, instance: &str) -> Result<bool, StoreError> {
    for sql in [
        "DELETE FROM leases WHERE holder = $1",
        "UPDATE agents SET online = 0 WHERE online = 1 AND instance = $1",
        "DELETE FROM instances WHERE id = $1",
    ] {
        sqlx::query(sql).bind(instance).execute(&mut *conn).await.map_err(failed)?;
    }
    Ok(true)
}
