//! Approvals of commands, and the keys whose signatures are approvals. Refuses a second
//! approval of one operator, and one that nobody waits for.

use sqlx::SqliteConnection;
use viworks_protocol::id::CommandId;

use super::rows::{self, command_columns};
use super::{Readers, int, json, ledger};
use crate::store::StoreError;
use crate::store::model::{Approved, Approver, AuditEntry, CommandState, MAX_PAGE, Page, PageOf};
use crate::store::write::Approval;

pub(super) async fn approve(
    conn: &mut SqliteConnection,
    id: &CommandId,
    approved: &Approved,
    entry: &AuditEntry,
) -> Result<Option<Approval>, StoreError> {
    let row = sqlx::query(concat!("SELECT ", command_columns!(), " FROM commands AS c WHERE c.id = ?1"))
        .bind(id.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let Some(row) = row else { return Ok(None) };
    let mut command = rows::command(&row)?;
    if command.state != CommandState::AwaitingApproval {
        return Ok(Some(Approval::NotAwaited(command)));
    }
    if command.approvals.iter().any(|a| a.operator == approved.operator || a.key == approved.key) {
        return Ok(Some(Approval::Repeated));
    }
    command.approvals.push(approved.clone());
    if !command.is_awaiting() {
        command.state = CommandState::Queued;
    }
    sqlx::query("UPDATE commands SET approvals = ?2, state = ?3 WHERE id = ?1")
        .bind(id.as_str())
        .bind(json(&command.approvals)?)
        .bind(command.state.as_str())
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    ledger::audit(conn, &[entry]).await?;
    Ok(Some(Approval::Counted(command)))
}

pub(super) async fn add(
    conn: &mut SqliteConnection,
    approver: &Approver,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO approvers (key_id, operator, pem, created_ms, created_by) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&approver.key)
    .bind(&approver.operator)
    .bind(&approver.pem)
    .bind(int(approver.created_ms))
    .bind(&approver.created_by)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if done.rows_affected() > 0 {
        ledger::audit(conn, &[entry]).await?;
    }
    Ok(done.rows_affected() > 0)
}

pub(super) async fn remove(conn: &mut SqliteConnection, key: &str, entry: &AuditEntry) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM approvers WHERE key_id = ?1")
        .bind(key)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    if done.rows_affected() > 0 {
        ledger::audit(conn, &[entry]).await?;
    }
    Ok(done.rows_affected() > 0)
}

impl Readers {
    pub(in crate::store) async fn approvers(&self, page: &PageOf) -> Result<Page<Approver>, StoreError> {
        let found = sqlx::query("SELECT key_id, operator, pem, created_ms, created_by FROM approvers WHERE key_id > coalesce(?1, '') ORDER BY key_id LIMIT ?2")
            .bind(page.after.as_deref())
            .bind(rows::limit(page))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::approver, |approver| approver.key.clone())
    }

    pub(in crate::store) async fn approver_keys(&self, operator: &str) -> Result<Vec<Approver>, StoreError> {
        let found = sqlx::query("SELECT key_id, operator, pem, created_ms, created_by FROM approvers WHERE operator = ?1 ORDER BY key_id LIMIT ?2")
            .bind(operator)
            .bind(MAX_PAGE)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        found.iter().map(rows::approver).collect()
    }
}
