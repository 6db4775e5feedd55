//! Releases and their bytes, published and read. (epoch, sequence) only grows.

use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeMap;
use viworks_protocol::chunk::Part;

use super::rows::{self, RowExt as _, plugin_columns};
use super::{Readers, int, ledger, releases};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Plugin, PluginSpread, Standing};
use crate::store::write::{NewPlugin, PartKey, Publication};

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Component => "component",
        Part::Statements => "statements",
    }
}

pub(super) async fn publish(conn: &mut SqliteConnection, new: &NewPlugin) -> Result<Publication, StoreError> {
    let plugin = &new.plugin;
    let newest = sqlx::query(concat!(
        "SELECT ",
        plugin_columns!(),
        " FROM plugins WHERE plugin = ?1 AND standing <> 'killed' ORDER BY epoch DESC, sequence DESC LIMIT 1"
    ))
    .bind(&plugin.plugin)
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let known = by_digest(conn, &plugin.digest).await?;
    if known.as_ref().is_some_and(|p| p.standing == Standing::Killed) {
        return Ok(Publication::Killed);
    }
    if let Some(newest) = newest.as_ref().map(rows::plugin).transpose()? {
        // The same bytes again are a way back from a deactivation; anything else must be newer.
        let again = newest.digest == plugin.digest && !newest.is_active();
        if !again && newest.order() >= plugin.order() {
            return Ok(Publication::NotNewer { newest });
        }
    }
    sqlx::query(
        "INSERT OR REPLACE INTO plugins (digest, plugin, version, epoch, sequence, release, component_size,
             statements_size, published_ms, published_by, standing, wanted, activated_ms, note)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'inactive', ?11, ?12, '')",
    )
    .bind(&plugin.digest)
    .bind(&plugin.plugin)
    .bind(&plugin.version)
    .bind(plugin.epoch)
    .bind(plugin.sequence)
    .bind(&plugin.release)
    .bind(plugin.component_size)
    .bind(plugin.statements_size)
    .bind(int(plugin.published_ms))
    .bind(&plugin.published_by)
    .bind(plugin.wanted.as_str())
    .bind(known.and_then(|p| p.activated_ms).map(int))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    for (part, bytes) in [(Part::Component, &new.component), (Part::Statements, &new.statements)] {
        sqlx::query("INSERT OR REPLACE INTO plugin_parts (digest, part, bytes) VALUES (?1, ?2, ?3)")
            .bind(&plugin.digest)
            .bind(part_name(part))
            .bind(bytes.as_ref())
            .execute(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
    }
    releases::stand(conn, plugin, plugin.standing, plugin.published_ms).await?;
    ledger::audit(conn, &[&new.audit]).await?;
    let stored = by_digest(conn, &plugin.digest).await?;
    Ok(Publication::Stored(stored.unwrap_or_else(|| plugin.clone())))
}

pub(super) async fn by_digest(conn: &mut SqliteConnection, digest: &str) -> Result<Option<Plugin>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", plugin_columns!(), " FROM plugins WHERE digest = ?1"))
        .bind(digest)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    row.as_ref().map(rows::plugin).transpose()
}

pub(super) async fn deactivate(
    conn: &mut SqliteConnection,
    plugin: &str,
    audit: &AuditEntry,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE plugins SET standing = 'inactive' WHERE plugin = ?1 AND standing = 'active'")
        .bind(plugin)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    if done.rows_affected() > 0 {
        ledger::audit(conn, &[audit]).await?;
    }
    Ok(done.rows_affected() > 0)
}

impl Readers {
    pub(in crate::store) async fn plugin(&self, digest: &str) -> Result<Option<Plugin>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(StoreError::Statement)?;
        by_digest(&mut conn, digest).await
    }

    pub(in crate::store) async fn plugins(&self) -> Result<Vec<Plugin>, StoreError> {
        let found = sqlx::query(concat!(
            "SELECT ",
            plugin_columns!(),
            " FROM plugins ORDER BY plugin, epoch DESC, sequence DESC LIMIT 10000"
        ))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(rows::plugin).collect()
    }

    pub(in crate::store) async fn plugin_part(&self, key: &PartKey) -> Result<Option<bytes::Bytes>, StoreError> {
        let row = sqlx::query("SELECT bytes FROM plugin_parts WHERE digest = ?1 AND part = ?2")
            .bind(&key.digest)
            .bind(part_name(key.part))
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        let bytes = row.map(|row| row.try_get::<Vec<u8>, _>("bytes").map_err(StoreError::Statement)).transpose()?;
        Ok(bytes.map(bytes::Bytes::from))
    }

    pub(in crate::store) async fn plugin_spread(&self) -> Result<BTreeMap<String, PluginSpread>, StoreError> {
        let found = sqlx::query("SELECT digest, state, count(*) AS agents FROM agent_plugins GROUP BY digest, state")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        let mut spread: BTreeMap<String, PluginSpread> = BTreeMap::new();
        for row in &found {
            let of = spread.entry(row.text("digest")?).or_default();
            let agents = row.small("agents")?;
            match row.text("state")?.as_str() {
                "active" => of.active = agents,
                "fetching" => of.fetching = agents,
                _ => of.refused = agents,
            }
        }
        Ok(spread)
    }
}
