//! The embedded engine: SQLite in WAL mode with full synchronisation. The only place of
//! its SQL. One writable connection; readers on a pool that can't write.

mod accept;
mod agents;
mod apply;
mod approvals;
mod census;
mod cluster;
mod commands;
pub(super) mod copy;
mod expiry;
mod leases;
mod ledger;
mod plans;
mod plugins;
mod prune;
mod receipts;
mod releases;
mod rollouts;
mod rows;
mod settle;
mod settle_one;
mod telemetry;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::lists::{int, json};
use super::write::{Answer, Note, Op};
use super::{StoreError, schema};

const READERS: u32 = 4;

/// The pool that can't write.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pool: SqlitePool,
}

/// The one connection that can.
#[derive(Debug)]
pub(super) struct Writable {
    conn: SqliteConnection,
    options: SqliteConnectOptions,
}

pub(super) async fn open(file: &Path) -> Result<(Readers, Writable), StoreError> {
    // Made here where absent, for its owner alone; SQLite gives its other files the same mode.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
        .map_err(|e| StoreError::Open(sqlx::Error::Io(e)))?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(StoreError::Open)?;
    migrate(&mut conn, &census::MIGRATIONS).await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_secs(10))
        // A file does not go away as a server does: the ping before each query costs more than it.
        .test_before_acquire(false)
        .connect_with(options.clone().read_only(true).create_if_missing(false))
        .await
        .map_err(StoreError::Open)?;
    Ok((Readers { pool }, Writable { conn, options }))
}

/// Bring the database to the newest form that is known here; a newer one is worked on as
/// well, unless it says that backends like this one must not.
async fn migrate(conn: &mut SqliteConnection, migrations: &sqlx::migrate::Migrator) -> Result<(), StoreError> {
    let known = schema::newest(migrations);
    if let Some(floor) = floor(conn).await? {
        schema::refuse(floor, known)?;
    }
    schema::tolerant(migrations).run(&mut *conn).await.map_err(StoreError::Migrate)?;
    schema::refuse(floor(conn).await?.unwrap_or(0), known)
}

async fn floor(conn: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    let there = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_floor'")
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Open)?;
    if there.is_none() {
        return Ok(None);
    }
    let floor = sqlx::query_scalar("SELECT max(migration) FROM schema_floor");
    floor.fetch_one(&mut *conn).await.map_err(StoreError::Open)
}

impl Readers {
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Writable {
    /// Apply `ops` in one transaction: all or none.
    pub(super) async fn commit(&mut self, ops: &[&Op]) -> Result<Vec<Answer>, StoreError> {
        let done = self.commit_once(ops).await;
        if done.is_err() {
            self.mend().await;
        }
        done
    }

    async fn commit_once(&mut self, ops: &[&Op]) -> Result<Vec<Answer>, StoreError> {
        if let [op] = ops
            && let Some(answer) = apply::alone(&mut self.conn, op).await
        {
            if answer.is_err() {
                // Fails where nothing was begun, and that is as well.
                let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.conn).await;
            }
            return answer.map(|answer| vec![answer]);
        }
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::Statement)?;
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            answers.push(apply::op(&mut tx, op).await?);
        }
        tx.commit().await.map_err(StoreError::Statement)?;
        Ok(answers)
    }

    /// Apply `notes` in one transaction: all or none.
    pub(super) async fn write_notes(&mut self, notes: &[Note]) -> Result<(), StoreError> {
        let done = self.write_once(notes).await;
        if done.is_err() {
            self.mend().await;
        }
        done
    }

    /// SQLite itself rolls back where the disk is full, and then the connection's own idea of
    /// its transaction is wrong for ever: after a failure there is a new one. Where none can be
    /// had, the old one is tried again.
    async fn mend(&mut self) {
        if let Err(error) = self.reopen().await {
            tracing::warn!(%error, "the database can't be opened again");
        }
    }

    async fn write_once(&mut self, notes: &[Note]) -> Result<(), StoreError> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::Statement)?;
        apply::notes(&mut tx, notes).await?;
        tx.commit().await.map_err(StoreError::Statement)
    }

    pub(super) async fn reopen(&mut self) -> Result<(), StoreError> {
        self.conn = SqliteConnection::connect_with(&self.options).await.map_err(StoreError::Open)?;
        Ok(())
    }

    pub(super) async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }
}
