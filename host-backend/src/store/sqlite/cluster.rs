//! What instances share. One file has one instance outside of tests; the statements mean
//! the same as the other engine's.

use sqlx::SqliteConnection;
use viworks_protocol::id::{AgentId, CommandId};

use super::rows::RowExt as _;
use super::{Readers, int, json};
use crate::store::StoreError;
use crate::store::cluster::{Change, Done, MOST, Mark, Owed, Owner, Stamps};

macro_rules! now_ms {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

pub(super) async fn apply(conn: &mut SqliteConnection, change: &Change) -> Result<Done, StoreError> {
    let query = match change {
        Change::Begin { instance, warrant_key } => return begin(conn, instance, warrant_key).await,
        Change::Claim { instance, sessions } => return claim(conn, instance, sessions).await,
        Change::Challenge { agent } => {
            sqlx::query("UPDATE agent_sessions SET challenged = 1 WHERE agent = ?1").bind(agent.as_str())
        }
        Change::Confirm { instance, sessions } => sqlx::query(
            "UPDATE agent_sessions SET challenged = 0 FROM json_each(?2) AS j
             WHERE agent = j.value ->> 0 AND session = j.value ->> 1 AND instance = ?1",
        )
        .bind(instance)
        .bind(json(sessions)?),
        Change::Disown { instance, sessions } => sqlx::query(
            "DELETE FROM agent_sessions WHERE instance = ?1 AND agent IN (SELECT s.agent FROM json_each(?2) AS j
                 CROSS JOIN agent_sessions AS s ON s.agent = j.value ->> 0 AND s.session = j.value ->> 1)",
        )
        .bind(instance)
        .bind(json(sessions)?),
        Change::Name { candidate } => {
            let row = sqlx::query(
                "INSERT INTO instance_group (one, name) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET name = name
                 RETURNING name",
            )
            .bind(candidate)
            .fetch_one(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
            return row.text("name").map(Done::Name);
        }
    };
    let done = query.execute(conn).await.map_err(StoreError::Statement)?;
    Ok(Done::Is(done.rows_affected() > 0))
}

async fn begin(conn: &mut SqliteConnection, instance: &str, warrant_key: &str) -> Result<Done, StoreError> {
    let gone = sqlx::query("DELETE FROM agent_sessions WHERE instance = ?1").bind(instance);
    let dead = sqlx::query("DELETE FROM instance_keys WHERE instance NOT IN (SELECT id FROM instances)");
    let key = sqlx::query("INSERT OR REPLACE INTO instance_keys (instance, warrant_key) VALUES (?1, ?2)");
    for query in [gone, dead, key.bind(instance).bind(warrant_key)] {
        query.execute(&mut *conn).await.map_err(StoreError::Statement)?;
    }
    let rows = sqlx::query(concat!(
        "SELECT k.instance, k.warrant_key FROM instance_keys AS k CROSS JOIN instances AS i ON i.id = k.instance
         WHERE k.instance <> ?1 AND i.lease_ms > ",
        now_ms!()
    ))
    .bind(instance)
    .fetch_all(conn)
    .await
    .map_err(StoreError::Statement)?;
    let others = rows.iter().map(|row| Ok((row.text("instance")?, row.text("warrant_key")?)));
    others.collect::<Result<_, StoreError>>().map(Done::Others)
}

async fn claim(conn: &mut SqliteConnection, instance: &str, sessions: &[(AgentId, u64)]) -> Result<Done, StoreError> {
    let rows = sqlx::query(concat!(
        "INSERT INTO agent_sessions (agent, instance, session)
         SELECT value ->> 0, ?1, value ->> 1 FROM json_each(?2) WHERE true
         ON CONFLICT (agent) DO UPDATE SET instance = excluded.instance, session = excluded.session, challenged = 0
         WHERE agent_sessions.instance = excluded.instance OR NOT EXISTS
             (SELECT 1 FROM instances AS i WHERE i.id = agent_sessions.instance AND i.lease_ms > ",
        now_ms!(),
        ") RETURNING agent"
    ))
    .bind(instance)
    .bind(json(&sessions)?)
    .fetch_all(conn)
    .await
    .map_err(StoreError::Statement)?;
    rows.iter().map(|row| row.parsed("agent")).collect::<Result<_, _>>().map(Done::Agents)
}

impl Readers {
    pub(in crate::store) async fn stamps(&self) -> Result<Stamps, StoreError> {
        let rows = sqlx::query("SELECT name, n FROM stamps").fetch_all(&self.pool).await;
        let rows = rows.map_err(StoreError::Statement)?;
        rows.iter().map(|row| Ok((row.text("name")?, row.number("n")?))).collect()
    }

    pub(in crate::store) async fn session_owner(&self, agent: &AgentId) -> Result<Option<Owner>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT s.instance, s.session, s.challenged, i.id IS NOT NULL AS alive FROM agent_sessions AS s
             LEFT JOIN instances AS i ON i.id = s.instance AND i.lease_ms > ",
            now_ms!(),
            " WHERE s.agent = ?1"
        ))
        .bind(agent.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        row.map(|row| {
            Ok(Owner {
                instance: row.text("instance")?,
                session: row.number("session")?,
                challenged: row.flag("challenged")?,
                alive: row.flag("alive")?,
            })
        })
        .transpose()
    }

    pub(in crate::store) async fn challenged(&self, instance: &str) -> Result<Vec<(AgentId, u64)>, StoreError> {
        let rows =
            sqlx::query("SELECT agent, session FROM agent_sessions WHERE instance = ?1 AND challenged = 1 LIMIT ?2")
                .bind(instance)
                .bind(MOST)
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::Statement)?;
        rows.iter().map(|row| Ok((row.parsed("agent")?, row.number("session")?))).collect()
    }

    pub(in crate::store) async fn owed_here(
        &self,
        instance: &str,
        sent_before_ms: u64,
        after: Option<&AgentId>,
    ) -> Result<Vec<Owed>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.agent, i.id, i.state = 'queued' AS queued
             FROM agent_sessions AS s CROSS JOIN invocations AS i ON i.agent = s.agent
             CROSS JOIN commands AS c ON c.n = i.command
             WHERE s.instance = ?1 AND s.agent > ?3 AND i.seq IS NULL AND c.state <> 'awaiting_approval'
                 AND (i.state = 'queued' OR i.sent_ms < ?2)
             ORDER BY s.agent LIMIT ?4",
        )
        .bind(instance)
        .bind(int(sent_before_ms))
        .bind(after.map_or("", AgentId::as_str))
        .bind(MOST)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let owed = |row| {
            Ok(Owed {
                agent: sqlx::sqlite::SqliteRow::parsed(row, "agent")?,
                invocation: sqlx::sqlite::SqliteRow::parsed(row, "id")?,
                queued: sqlx::sqlite::SqliteRow::flag(row, "queued")?,
            })
        };
        rows.iter().map(owed).collect()
    }

    pub(in crate::store) async fn queued_here(
        &self,
        instance: &str,
        command: &CommandId,
    ) -> Result<Vec<AgentId>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.agent FROM commands AS c CROSS JOIN invocations AS i ON i.command = c.n AND i.state = 'queued'
             CROSS JOIN agent_sessions AS s ON s.agent = i.agent AND s.instance = ?1
             WHERE c.id = ?2",
        )
        .bind(instance)
        .bind(command.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        rows.iter().map(|row| row.parsed("agent")).collect()
    }

    pub(in crate::store) async fn marks(&self, commands: &[CommandId]) -> Result<Vec<Mark>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.id, c.last_seq, c.finished_ms IS NOT NULL AS finished,
                 c.cancel_requested, c.batch IS NOT NULL AND c.queued > 0 AS batched
             FROM json_each(?1) AS j CROSS JOIN commands AS c ON c.id = j.value",
        )
        .bind(json(&commands)?)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let mark = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Mark {
                command: row.parsed("id")?,
                last_seq: row.number("last_seq")?,
                finished: row.flag("finished")?,
                cancelling: row.flag("cancel_requested")?,
                batched: row.flag("batched")?,
            })
        };
        rows.iter().map(mark).collect()
    }
}
