//! The audit record, bearer tokens, and the probe that tells whether writes work.

use sqlx::SqliteConnection;

use super::rows::{self, RowExt as _};
use super::{Readers, int};
use crate::store::model::{AuditEntry, AuditRow, Page, PageOf, Token};
use crate::store::{StoreError, lists};

pub(super) async fn audit(conn: &mut SqliteConnection, entries: &[&AuditEntry]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
         FROM json_each(?1) ORDER BY key",
    )
    .bind(lists::audit(entries)?)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

pub(super) async fn create_token(
    conn: &mut SqliteConnection,
    token: &Token,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO tokens (name, role, sha256, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&token.name)
    .bind(token.role.as_str())
    .bind(token.sha256.as_slice())
    .bind(int(token.created_ms))
    .bind(token.expires_ms.map(int))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if done.rows_affected() > 0 {
        audit(conn, &[entry]).await?;
    }
    Ok(done.rows_affected() > 0)
}

pub(super) async fn revoke_token(
    conn: &mut SqliteConnection,
    name: &str,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM tokens WHERE name = ?1")
        .bind(name)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    if done.rows_affected() > 0 {
        audit(conn, &[entry]).await?;
    }
    Ok(done.rows_affected() > 0)
}

pub(super) async fn probe(conn: &mut SqliteConnection, now_ms: u64) -> Result<u64, StoreError> {
    sqlx::query("INSERT INTO probe (one, at_ms) VALUES (1, ?1) ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms")
        .bind(int(now_ms))
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    Ok(now_ms)
}

impl Readers {
    pub(in crate::store) async fn probed(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT coalesce(max(at_ms), 0) AS at_ms FROM probe")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.number("at_ms")
    }

    pub(in crate::store) async fn tokens(&self, page: &PageOf) -> Result<Page<Token>, StoreError> {
        let found = sqlx::query("SELECT name, role, sha256, created_ms, expires_ms FROM tokens WHERE name > coalesce(?1, '') ORDER BY name LIMIT ?2")
            .bind(page.after.as_deref())
            .bind(rows::limit(page))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::token, |token| token.name.clone())
    }

    pub(in crate::store) async fn token_by_hash(&self, sha256: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query("SELECT name, role, sha256, created_ms, expires_ms FROM tokens WHERE sha256 = ?1")
            .bind(sha256.as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::token).transpose()
    }

    pub(in crate::store) async fn audit_page(&self, page: &PageOf) -> Result<Page<AuditRow>, StoreError> {
        let found = sqlx::query("SELECT seq, at_ms, actor, action, subject, decision, detail FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2")
            .bind(rows::number_cursor(page)?.unwrap_or(i64::MAX))
            .bind(rows::limit(page))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::audit, |row| row.seq.to_string())
    }
}
