//! PostgreSQL: one connection that writes for this instance, a pool that reads, and other
//! instances beside it. Whoever changes a command's invocations holds the command's row, so
//! that counts and the order of ends are one instance's at a time, and `seq` is visible in
//! its order. Refuses databases that are too new.

mod accept;
mod agents;
mod apply;
mod approvals;
mod census;
mod cluster;
mod commands;
mod connection;
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
mod telemetry;
#[cfg(test)]
mod tests;
mod text;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use std::time::Duration;

use super::lists::{int, json};
use super::{StoreError, schema};
pub(super) use connection::Writable;
use text::{list, plain};

const READERS: u32 = 8;
const ACQUIRE_WITHIN: Duration = Duration::from_secs(3);
/// A connection that takes longer is none.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The pool that reads.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pool: PgPool,
}

pub(super) async fn open(options: &PgConnectOptions) -> Result<(Readers, Writable), StoreError> {
    let options = options.clone().options([
        // Nobody waits for ever for another instance's lock, nor holds one while it is away.
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "20s"),
    ]);
    let mut conn = connect(&options).await.map_err(StoreError::Open)?;
    migrate(&mut conn, &census::MIGRATIONS).await?;
    drop(conn.close().await);
    let pool = PgPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_WITHIN)
        .connect_with(options.clone().application_name("viworks-reader"))
        .await
        .map_err(StoreError::Open)?;
    Ok((Readers { pool }, Writable::new(options)?))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    match tokio::time::timeout(CONNECT_WITHIN, PgConnection::connect_with(options)).await {
        Ok(connected) => connected,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// As for the embedded engine; instances that start together wait for each other here, by
/// the migrator's advisory lock.
async fn migrate(conn: &mut PgConnection, migrations: &sqlx::migrate::Migrator) -> Result<(), StoreError> {
    let known = schema::newest(migrations);
    if let Some(floor) = floor(conn).await? {
        schema::refuse(floor, known)?;
    }
    // The lock's own wait is not bounded by the statements' one.
    let unbounded = sqlx::raw_sql("SET lock_timeout = 0").execute(&mut *conn).await;
    unbounded.map_err(StoreError::Open)?;
    schema::tolerant(migrations).run(&mut *conn).await.map_err(StoreError::Migrate)?;
    schema::refuse(floor(conn).await?.unwrap_or(0), known)
}

async fn floor(conn: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass('schema_floor') IS NOT NULL");
    if !there.fetch_one(&mut *conn).await.map_err(StoreError::Open)? {
        return Ok(None);
    }
    let floor = sqlx::query_scalar("SELECT max(migration) FROM schema_floor");
    floor.fetch_one(&mut *conn).await.map_err(StoreError::Open)
}

/// What an error of the database means to whoever asked.
fn failed(error: sqlx::Error) -> StoreError {
    match kind(&error) {
        Kind::Lost => StoreError::Unavailable(error),
        Kind::Taken(constraint) => StoreError::Taken(constraint),
        Kind::Contended | Kind::Wrong => StoreError::Statement(error),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The server is gone, or is going.
    Lost,
    /// Another instance was in the way: the same again may go through.
    Contended,
    /// A value that is there already.
    Taken(String),
    Wrong,
}

fn kind(error: &sqlx::Error) -> Kind {
    let sqlx::Error::Database(answer) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => Kind::Lost,
            _ => Kind::Wrong,
        };
    };
    // Codes as in PostgreSQL's appendix "Error Codes".
    match answer.code().as_deref() {
        Some("40001" | "40P01" | "55P03") => Kind::Contended,
        Some("23505") => Kind::Taken(answer.constraint().unwrap_or("a value").to_owned()),
        // Shutdown, recovery, too many connections, a disk that is full, connection exceptions.
        Some(code) if code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") => Kind::Lost,
        // Ended for being idle in a transaction.
        Some("25P03") => Kind::Lost,
        _ => Kind::Wrong,
    }
}

impl Readers {
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
