//! Counts over everything that has not ended, for metrics; and whether the database has
//! this version's form. Each count is one look at an index.

use sqlx::Row as _;

use super::Readers;
use super::rows::RowExt as _;
use crate::store::StoreError;
use crate::store::model::Census;

/// This version's migrations.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/sqlite/migrations");

impl Readers {
    pub(in crate::store) async fn census(&self) -> Result<Census, StoreError> {
        let found = sqlx::query(
            "SELECT 'commands' AS what, state, count(*) AS n FROM commands
                 WHERE state IN ('awaiting_approval', 'queued', 'running') GROUP BY state
             UNION ALL SELECT 'agents', CASE WHEN online = 1 THEN 'online' WHEN stale = 1 THEN 'stale' ELSE 'offline' END,
                 count(*) FROM agents GROUP BY 2
             UNION ALL SELECT 'releases', standing, count(*) FROM plugins GROUP BY standing
             UNION ALL SELECT 'rollouts', state, count(*) FROM rollouts WHERE finished_ms IS NULL GROUP BY state
             UNION ALL SELECT 'plugins', state, count(*) FROM agent_plugins GROUP BY state",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let mut census = Census::default();
        for row in &found {
            census.add(&row.text("what")?, row.text("state")?, row.number("n")?);
        }
        Ok(census)
    }

    /// Migrations of this version that the database lacks.
    pub(in crate::store) async fn pending_migrations(&self) -> Result<u64, StoreError> {
        let done = sqlx::query("SELECT version FROM _sqlx_migrations WHERE success = 1")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        let done: Vec<i64> =
            done.iter().map(|row| row.try_get("version")).collect::<Result<_, _>>().map_err(StoreError::Statement)?;
        let lacking = MIGRATIONS.iter().filter(|m| !done.contains(&m.version));
        Ok(lacking.count() as u64)
    }
}
