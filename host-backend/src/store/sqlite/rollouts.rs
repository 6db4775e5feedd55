//! Rollouts, their members, and what releases did meanwhile.

use sqlx::{QueryBuilder, Row as _, SqliteConnection, sqlite::SqliteRow};
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::rows::{self, RowExt as _, rollout_columns};
use super::{Readers, int, json, ledger};
use crate::store::StoreError;
use crate::store::model::{Page, PageOf, Rollout};
use crate::store::release::Progress;

/// Read at a time of what is bounded elsewhere.
const MOST: i64 = 100_000;

pub(super) async fn begin(conn: &mut SqliteConnection, progress: &Progress) -> Result<(), StoreError> {
    let of = &progress.rollout;
    sqlx::query(
        "INSERT INTO rollouts (id, plugin, digest, former, spec, state, stage, everyone, reason, created_ms,
             created_by, changed_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?10)",
    )
    .bind(&of.id)
    .bind(&of.plugin)
    .bind(&of.digest)
    .bind(&of.former)
    .bind(&of.spec)
    .bind(of.state.as_str())
    .bind(of.stage)
    .bind(i64::from(of.everyone))
    .bind(&of.reason)
    .bind(int(of.created_ms))
    .bind(&of.created_by)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    // An earlier rollout of it must not speak for this one.
    sqlx::query("DELETE FROM tallies WHERE digest = ?1")
        .bind(&of.digest)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    members(conn, progress).await?;
    ledger::audit(conn, &[&progress.audit]).await
}

pub(super) async fn proceed(conn: &mut SqliteConnection, progress: &Progress) -> Result<(), StoreError> {
    let of = &progress.rollout;
    sqlx::query(
        "UPDATE rollouts SET state = ?2, stage = ?3, soaking_ms = ?4, everyone = ?5, reason = ?6, changed_ms = ?7,
             finished_ms = ?8
         WHERE id = ?1",
    )
    .bind(&of.id)
    .bind(of.state.as_str())
    .bind(of.stage)
    .bind(of.soaking_ms.map(int))
    .bind(i64::from(of.everyone))
    .bind(&of.reason)
    .bind(int(of.changed_ms))
    .bind(of.finished_ms.map(int))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if progress.anew {
        sqlx::query("DELETE FROM rollout_members WHERE rollout = (SELECT n FROM rollouts WHERE id = ?1)")
            .bind(&of.id)
            .execute(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
    }
    members(conn, progress).await?;
    tallies(conn, &progress.tallies).await?;
    ledger::audit(conn, &[&progress.audit]).await
}

/// Digest, name, tally.
pub(super) async fn tallies(
    conn: &mut SqliteConnection,
    tallies: &[(String, String, String)],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO tallies (digest, name, tally)
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)",
    )
    .bind(json(&tallies)?)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

async fn members(conn: &mut SqliteConnection, progress: &Progress) -> Result<(), StoreError> {
    if progress.members.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO rollout_members (rollout, agent, stage)
         SELECT (SELECT n FROM rollouts WHERE id = ?1), value, ?2 FROM json_each(?3)",
    )
    .bind(&progress.rollout.id)
    .bind(progress.rollout.stage)
    .bind(json(&progress.members)?)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

impl Readers {
    pub(in crate::store) async fn rollout(&self, id: &str) -> Result<Option<Rollout>, StoreError> {
        let row = sqlx::query(concat!("SELECT ", rollout_columns!(), " FROM rollouts WHERE id = ?1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        Ok(row.as_ref().map(rows::rollout).transpose()?.map(|(_, of)| of))
    }

    pub(in crate::store) async fn rollouts(&self, plugin: &str, page: &PageOf) -> Result<Page<Rollout>, StoreError> {
        let mut query = QueryBuilder::new(concat!("SELECT ", rollout_columns!(), " FROM rollouts WHERE plugin = "));
        query.push_bind(plugin.to_owned());
        if let Some(after) = rows::number_cursor(page)? {
            query.push(" AND n < ").push_bind(after);
        }
        query.push(" ORDER BY n DESC LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        let Page { items, next } = rows::page(&found, page, rows::rollout, |(n, _)| n.to_string())?;
        Ok(Page { items: items.into_iter().map(|(_, of)| of).collect(), next })
    }

    pub(in crate::store) async fn open_rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        let found = sqlx::query(concat!(
            "SELECT ",
            rollout_columns!(),
            " FROM rollouts WHERE finished_ms IS NULL ORDER BY n LIMIT 1000"
        ))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| rows::rollout(row).map(|(_, of)| of)).collect()
    }

    pub(in crate::store) async fn rollout_members(&self, id: &str) -> Result<Vec<AgentId>, StoreError> {
        let found = sqlx::query(
            "SELECT agent FROM rollout_members WHERE rollout = (SELECT n FROM rollouts WHERE id = ?1) ORDER BY agent",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| row.parsed("agent")).collect()
    }

    pub(in crate::store) async fn plugin_holders(
        &self,
        plugin: &str,
    ) -> Result<Vec<(AgentId, PluginStatus)>, StoreError> {
        let found = sqlx::query(
            "SELECT agent, plugin, version, digest, state, detail FROM agent_plugins WHERE plugin = ?1 LIMIT ?2",
        )
        .bind(plugin)
        .bind(MOST)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(rows::holder).collect()
    }

    pub(in crate::store) async fn present_agents(&self) -> Result<Vec<(AgentId, bool)>, StoreError> {
        let found = sqlx::query("SELECT id, online FROM agents WHERE stale = 0 ORDER BY id LIMIT ?1")
            .bind(MOST)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        found.iter().map(|row| Ok((row.parsed("id")?, row.flag("online")?))).collect()
    }

    pub(in crate::store) async fn tallies(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        let found = sqlx::query("SELECT digest, name, tally FROM tallies ORDER BY digest, name LIMIT ?1")
            .bind(MOST)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        found.iter().map(|row| Ok((row.text("digest")?, row.text("name")?, row.text("tally")?))).collect()
    }

    pub(in crate::store) async fn mirrored(&self) -> Result<Vec<(String, bytes::Bytes)>, StoreError> {
        let found = sqlx::query("SELECT name, bytes FROM mirror ORDER BY name LIMIT 10000")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        let file = |row: &SqliteRow| {
            let bytes: Vec<u8> = row.try_get("bytes").map_err(StoreError::Statement)?;
            Ok((row.text("name")?, bytes.into()))
        };
        found.iter().map(file).collect()
    }

    pub(in crate::store) async fn serving(
        &self,
        digest: &str,
    ) -> Result<Vec<(AgentId, InvocationId, Option<CommandId>)>, StoreError> {
        let found = sqlx::query(
            "SELECT i.agent, i.id, iif(c.digest = ?1, c.id, NULL) AS command
             FROM commands AS c CROSS JOIN invocations AS i ON i.command = c.n
             WHERE c.finished_ms IS NULL AND i.seq IS NULL
                 AND (c.digest = ?1 OR EXISTS (SELECT 1 FROM json_each(c.also) WHERE value = ?1))
             LIMIT ?2",
        )
        .bind(digest)
        .bind(MOST)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let one = |row: &SqliteRow| {
            let command = row.maybe_text("command")?;
            let command = command
                .map(|text| text.parse().map_err(|_| StoreError::Corrupt { what: "command", text }))
                .transpose()?;
            Ok((row.parsed("agent")?, row.parsed("id")?, command))
        };
        found.iter().map(one).collect()
    }
}
