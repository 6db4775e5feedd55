//! PostgreSQL's whole content: read in one snapshot beside everybody who writes, and
//! written into an empty database.

use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{connect, failed, int, json, list, plain};
use crate::store::StoreError;
use crate::store::copy::{Kind, Restored, TABLES};

#[derive(Debug)]
pub(crate) struct Snapshot {
    conn: PgConnection,
}

impl Snapshot {
    pub(in crate::store) async fn open(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let mut conn = connect(options).await.map_err(StoreError::Open)?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut conn)
            .await
            .map_err(StoreError::Open)?;
        Ok(Self { conn })
    }

    pub(in crate::store) async fn columns(&mut self, table: &str) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .bind(table)
        .fetch_all(&mut self.conn)
        .await
        .map_err(failed)
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
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let mut values = Vec::with_capacity(columns.len());
            for (place, (_, kind)) in columns.iter().enumerate() {
                let value = match kind {
                    Kind::Int => row.try_get::<Option<i64>, _>(place).map(Value::from),
                    Kind::Real => row.try_get::<Option<f64>, _>(place).map(Value::from),
                    Kind::Text | Kind::Json => row.try_get::<Option<String>, _>(place).map(Value::from),
                    Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(place).map(|b| Value::from(b.map(hex::encode))),
                };
                values.push(value.map_err(failed)?);
            }
            each(values)?;
        }
        Ok(())
    }
}

/// Values as they can be stored here: texts lose NUL.
pub(in crate::store) fn storable(row: &mut [Value], columns: &[(&'static str, Kind)]) {
    for (value, (_, kind)) in row.iter_mut().zip(columns) {
        if let Value::String(text) = value {
            match kind {
                Kind::Json => *text = list(std::mem::take(text)),
                _ if text.contains('\0') => *text = plain(text).into_owned(),
                _ => {}
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Filling {
    conn: PgConnection,
}

impl Filling {
    pub(in crate::store) async fn begin(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let mut conn = connect(options).await.map_err(StoreError::Open)?;
        sqlx::raw_sql("BEGIN").execute(&mut conn).await.map_err(failed)?;
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
                Kind::Int => format!("(j.value ->> {place})::bigint"),
                Kind::Real => format!("(j.value ->> {place})::float8"),
                Kind::Bytes => format!("decode(j.value ->> {place}, 'hex')"),
                Kind::Text | Kind::Json => format!("j.value ->> {place}"),
            })
            .collect();
        let (names, values) = (names.join(", "), values.join(", "));
        let sql = AssertSqlSafe(format!(
            "INSERT INTO {table} ({names}) SELECT {values}
             FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS j (value, place) ORDER BY j.place"
        ));
        sqlx::query(sql).bind(json(&rows)?).execute(&mut self.conn).await.map_err(failed)?;
        Ok(())
    }

    pub(in crate::store) async fn finish(mut self, restored: Option<Restored>) -> Result<(), StoreError> {
        for table in TABLES {
            let Some(column) = table.counted else { continue };
            let name = table.name;
            let sql = AssertSqlSafe(format!(
                "SELECT setval(pg_get_serial_sequence('{name}', '{column}'),
                     (SELECT coalesce(max({column}), 0) + 1 FROM {name}), false)"
            ));
            sqlx::query(sql).execute(&mut self.conn).await.map_err(failed)?;
        }
        if let Some(restored) = restored {
            sqlx::query("INSERT INTO restores (at_ms, backup_ms) VALUES ($1, $2)")
                .bind(int(restored.at_ms))
                .bind(int(restored.backup_ms))
                .execute(&mut self.conn)
                .await
                .map_err(failed)?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.conn).await.map_err(failed)?;
        self.conn.close().await.map_err(failed)
    }
}
