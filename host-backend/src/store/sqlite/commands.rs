//! Commands and invocations as they are read: by id, in pages, and what an agent owes.

use sqlx::{QueryBuilder, Sqlite};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::rows::{self, RowExt, command_columns, invocation_columns};
use super::{Readers, int};
use crate::store::model::{Command, CommandFilter, Invocation, InvocationState, MAX_PAGE, Page, PageOf};
use crate::store::{OpenInvocation, StoreError};

/// The command's number, for a subquery on `invocations`.
const NUMBER: &str = "(SELECT n FROM commands WHERE id = ";

impl Readers {
    pub(in crate::store) async fn command(&self, id: &CommandId) -> Result<Option<Command>, StoreError> {
        let row = sqlx::query(concat!("SELECT ", command_columns!(), " FROM commands AS c WHERE c.id = ?1"))
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::command).transpose()
    }

    pub(in crate::store) async fn command_by_key(
        &self,
        caller: &str,
        key: &str,
    ) -> Result<Option<Command>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            command_columns!(),
            " FROM commands AS c WHERE c.caller = ?1 AND c.idempotency_key = ?2"
        ))
        .bind(caller)
        .bind(key)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::command).transpose()
    }

    pub(in crate::store) async fn commands(
        &self,
        filter: &CommandFilter,
        page: &PageOf,
    ) -> Result<Page<Command>, StoreError> {
        let mut query =
            QueryBuilder::<Sqlite>::new(concat!("SELECT ", command_columns!(), " FROM commands AS c WHERE true"));
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(verb) = &filter.verb {
            query.push(" AND verb = ").push_bind(verb.clone());
        }
        if let Some(caller) = &filter.caller {
            query.push(" AND caller = ").push_bind(caller.clone());
        }
        if let Some(after) = &page.after {
            query.push(" AND id < ").push_bind(after.clone());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::command, |command| command.id.to_string())
    }

    pub(in crate::store) async fn invocations(
        &self,
        command: &CommandId,
        state: Option<InvocationState>,
        page: &PageOf,
    ) -> Result<Page<Invocation>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(concat!("SELECT ", invocation_columns!(), ", "));
        query.push_bind(command.as_str().to_owned()).push(" AS command_id FROM invocations AS i WHERE command = ");
        query.push(NUMBER).push_bind(command.as_str().to_owned()).push(")");
        if let Some(state) = state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(after) = rows::number_cursor(page)? {
            query.push(" AND ordinal > ").push_bind(after);
        }
        query.push(" ORDER BY ordinal LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::invocation, |invocation| invocation.ordinal.to_string())
    }

    pub(in crate::store) async fn settled_after(
        &self,
        command: &CommandId,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<Invocation>, StoreError> {
        let found = sqlx::query(concat!(
            "SELECT ?1 AS command_id, ",
            invocation_columns!(),
            " FROM invocations AS i WHERE i.command = (SELECT n FROM commands WHERE id = ?1)
                     AND i.seq IS NOT NULL AND i.seq > ?2 ORDER BY i.seq LIMIT ?3"
        ))
        .bind(command.as_str())
        .bind(int(seq))
        .bind(limit.clamp(1, MAX_PAGE))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(rows::invocation).collect()
    }

    pub(in crate::store) async fn invocation(&self, id: &InvocationId) -> Result<Option<Invocation>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT c.id AS command_id, ",
            invocation_columns!(),
            " FROM invocations AS i JOIN commands AS c ON c.n = i.command WHERE i.id = ?1"
        ))
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::invocation).transpose()
    }

    pub(in crate::store) async fn open_for(
        &self,
        agent: &AgentId,
        after: Option<&CommandId>,
        limit: u32,
    ) -> Result<Vec<OpenInvocation>, StoreError> {
        let found = sqlx::query(
            concat!(
                "SELECT i.id AS invocation_id, i.ordinal, i.state AS invocation_state, ",
                command_columns!(),
                " FROM invocations AS i CROSS JOIN commands AS c ON c.n = i.command
             WHERE i.agent = ?1 AND i.seq IS NULL AND c.state <> 'awaiting_approval' AND i.command > coalesce((SELECT n FROM commands WHERE id = ?2), -1)
             ORDER BY i.command LIMIT ?3"
            ),
        )
        .bind(agent.as_str())
        .bind(after.map(CommandId::as_str))
        .bind(limit.clamp(1, MAX_PAGE))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let read = |row| {
            Ok(OpenInvocation {
                invocation: RowExt::parsed(row, "invocation_id")?,
                ordinal: RowExt::small(row, "ordinal")?,
                state: RowExt::parsed(row, "invocation_state")?,
                command: rows::command(row)?,
            })
        };
        found.iter().map(read).collect()
    }

    pub(in crate::store) async fn targets(&self, command: &CommandId) -> Result<Vec<AgentId>, StoreError> {
        let found = sqlx::query(
            "SELECT agent FROM invocations WHERE command = (SELECT n FROM commands WHERE id = ?1) ORDER BY ordinal",
        )
        .bind(command.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| row.parsed("agent")).collect()
    }

    pub(in crate::store) async fn next_due(&self) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT min(due_ms) AS due_ms FROM commands WHERE finished_ms IS NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.maybe_number("due_ms")
    }

    pub(in crate::store) async fn count_open_commands(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS open FROM commands WHERE finished_ms IS NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.number("open")
    }
}
