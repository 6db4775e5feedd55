//! The embedded engine's whole content: read in one transaction beside the one that writes,
//! and written into an empty file.

use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use std::path::Path;

use super::json;
use crate::store::StoreError;
use crate::store::copy::{Kind, Restored};
use crate::store::lists::int;

#[derive(Debug)]
pub(crate) struct Snapshot {
    conn: SqliteConnection,
}

impl Snapshot {
    pub(in crate::store) async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        let mut conn = SqliteConnection::connect_with(&options).await.map_err(StoreError::Open)?;
        // The first read fixes what all of them see.
        for sql in ["BEGIN", "SELECT count(*) FROM sqlite_master"] {
            sqlx::raw_sql(sql).execute(&mut conn).await.map_err(StoreError::Open)?;
        }
        Ok(Self { conn })
    }

    pub(in crate::store) async fn columns(&mut self, table: &str) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT name FROM pragma_table_info(?1) ORDER BY cid")
            .bind(table)
            .fetch_all(&mut self.conn)
            .await
            .map_err(StoreError::Statement)
    }

    pub(in crate::store) async fn rows<E: From<StoreError>>(
        &mut self,
        table: &str,
        columns: &[(&'static str, Kind)],
        mut each: impl FnMut(Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        if columns.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        // Names are the list's own, none of them from outside.
        let sql = AssertSqlSafe(format!("SELECT {} FROM {table}", names.join(", ")));
        let mut rows = sqlx::query(sql).fetch(&mut self.conn);
        while let Some(row) = rows.try_next().await.map_err(StoreError::Statement)? {
            let mut values = Vec::with_capacity(columns.len());
            for (place, (_, kind)) in columns.iter().enumerate() {
                let value = match kind {
                    Kind::Int => row.try_get::<Option<i64>, _>(place).map(Value::from),
                    Kind::Real => row.try_get::<Option<f64>, _>(place).map(Value::from),
                    Kind::Text | Kind::Json => row.try_get::<Option<String>, _>(place).map(Value::from),
                    Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(place).map(|b| Value::from(b.map(hex::encode))),
                };
                values.push(value.map_err(StoreError::Statement)?);
            }
            each(values)?;
        }
        Ok(())
    }
}

pub(in crate::store) async fn gather_into_one(file: &Path) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new().filename(file);
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(StoreError::Open)?;
    let row =
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut conn).await.map_err(StoreError::Statement)?;
    let busy: i64 = row.try_get(0).map_err(StoreError::Statement)?;
    conn.close().await.map_err(StoreError::Statement)?;
    if busy != 0 { Err(StoreError::Busy) } else { Ok(()) }
}

#[derive(Debug)]
pub(crate) struct Filling {
    conn: SqliteConnection,
}

impl Filling {
    pub(in crate::store) async fn begin(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(file).foreign_keys(true);
        let mut conn = SqliteConnection::connect_with(&options).await.map_err(StoreError::Open)?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut conn).await.map_err(StoreError::Statement)?;
        Ok(Self { conn })
    }

    pub(in crate::store) async fn add(
        &mut self,
        table: &str,
        columns: &[(&'static str, Kind)],
        rows: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(place, (_, kind))| match kind {
                Kind::Bytes => format!("unhex(value ->> {place})"),
                _ => format!("value ->> {place}"),
            })
            .collect();
        let (names, values) = (names.join(", "), values.join(", "));
        let sql =
            AssertSqlSafe(format!("INSERT INTO {table} ({names}) SELECT {values} FROM json_each(?1) ORDER BY key"));
        sqlx::query(sql).bind(json(&rows)?).execute(&mut self.conn).await.map_err(StoreError::Statement)?;
        Ok(())
    }

    pub(in crate::store) async fn finish(mut self, restored: Option<Restored>) -> Result<(), StoreError> {
        if let Some(restored) = restored {
            sqlx::query("INSERT INTO restores (at_ms, backup_ms) VALUES (?1, ?2)")
                .bind(int(restored.at_ms))
                .bind(int(restored.backup_ms))
                .execute(&mut self.conn)
                .await
                .map_err(StoreError::Statement)?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.conn).await.map_err(StoreError::Statement)?;
        self.conn.close().await.map_err(StoreError::Statement)
    }
}
