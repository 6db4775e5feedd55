//! What instances share. Sessions are entered and left in the order of their agents, so
//! that two instances that do so together wait for each other and never for ever.

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use viworks_protocol::id::{AgentId, CommandId};

use super::rows::RowExt as _;
use super::{Readers, failed, int};
use crate::store::StoreError;
use crate::store::cluster::{Change, Done, MOST, Mark, Owed, Owner, Stamps};

macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// Agents and sessions, by agent.
fn columns(sessions: &[(AgentId, u64)]) -> (Vec<&str>, Vec<i64>) {
    let mut sorted: Vec<_> = sessions.iter().collect();
    sorted.sort();
    sorted.into_iter().map(|(agent, session)| (agent.as_str(), int(*session))).unzip()
}

pub(super) async fn apply(conn: &mut PgConnection, change: &Change) -> Result<Done, StoreError> {
    let done = match change {
        Change::Begin { instance, warrant_key } => return begin(conn, instance, warrant_key).await,
        Change::Claim { instance, sessions } => return claim(conn, instance, sessions).await,
        Change::Challenge { agent } => {
            let query = sqlx::query("UPDATE agent_sessions SET challenged = 1 WHERE agent = $1").bind(agent.as_str());
            query.execute(conn).await
        }
        Change::Confirm { instance, sessions } => {
            let (agents, numbers) = columns(sessions);
            let query = sqlx::query(
                "UPDATE agent_sessions AS s SET challenged = 0 FROM unnest($2::text[], $3::bigint[]) AS j (agent, session)
                 WHERE s.agent = j.agent AND s.session = j.session AND s.instance = $1",
            );
            query.bind(instance).bind(agents).bind(numbers).execute(conn).await
        }
        Change::Disown { instance, sessions } => {
            let (agents, numbers) = columns(sessions);
            let query = sqlx::query(
                "DELETE FROM agent_sessions WHERE agent IN (SELECT s.agent FROM agent_sessions AS s
                     JOIN unnest($2::text[], $3::bigint[]) AS j (agent, session)
                         ON s.agent = j.agent AND s.session = j.session
                     WHERE s.instance = $1 ORDER BY s.agent FOR UPDATE OF s)",
            );
            query.bind(instance).bind(agents).bind(numbers).execute(conn).await
        }
        Change::Name { candidate } => {
            let row = sqlx::query(
                "INSERT INTO instance_group (one, name) VALUES (1, $1)
                 ON CONFLICT (one) DO UPDATE SET name = instance_group.name RETURNING name",
            )
            .bind(candidate)
            .fetch_one(conn)
            .await
            .map_err(failed)?;
            return row.text("name").map(Done::Name);
        }
    };
    done.map(|done| Done::Is(done.rows_affected() > 0)).map_err(failed)
}

async fn begin(conn: &mut PgConnection, instance: &str, warrant_key: &str) -> Result<Done, StoreError> {
    let gone = sqlx::query("DELETE FROM agent_sessions WHERE instance = $1").bind(instance);
    gone.execute(&mut *conn).await.map_err(failed)?;
    let dead = sqlx::query("DELETE FROM instance_keys WHERE instance NOT IN (SELECT id FROM instances)");
    dead.execute(&mut *conn).await.map_err(failed)?;
    sqlx::query(
        "INSERT INTO instance_keys (instance, warrant_key) VALUES ($1, $2)
         ON CONFLICT (instance) DO UPDATE SET warrant_key = excluded.warrant_key",
    )
    .bind(instance)
    .bind(warrant_key)
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    let rows = sqlx::query(concat!(
        "SELECT k.instance, k.warrant_key FROM instance_keys AS k JOIN instances AS i ON i.id = k.instance
         WHERE k.instance <> $1 AND i.lease_ms > ",
        now_ms!()
    ))
    .bind(instance)
    .fetch_all(conn)
    .await
    .map_err(failed)?;
    let others = rows.iter().map(|row| Ok((row.text("instance")?, row.text("warrant_key")?)));
    others.collect::<Result<_, StoreError>>().map(Done::Others)
}

async fn claim(conn: &mut PgConnection, instance: &str, sessions: &[(AgentId, u64)]) -> Result<Done, StoreError> {
    let (agents, numbers) = columns(sessions);
    let rows = sqlx::query(concat!(
        "INSERT INTO agent_sessions (agent, instance, session)
         SELECT agent, $1, session FROM unnest($2::text[], $3::bigint[]) AS j (agent, session)
         ON CONFLICT (agent) DO UPDATE SET instance = excluded.instance, session = excluded.session, challenged = 0
         WHERE agent_sessions.instance = excluded.instance OR NOT EXISTS
             (SELECT 1 FROM instances AS i WHERE i.id = agent_sessions.instance AND i.lease_ms > ",
        now_ms!(),
        ") RETURNING agent"
    ))
    .bind(instance)
    .bind(agents)
    .bind(numbers)
    .fetch_all(conn)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| row.parsed("agent")).collect::<Result<_, _>>().map(Done::Agents)
}

impl Readers {
    pub(in crate::store) async fn stamps(&self) -> Result<Stamps, StoreError> {
        let rows = sqlx::query("SELECT name, n FROM stamps").fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter().map(|row| Ok((row.text("name")?, row.number("n")?))).collect()
    }

    pub(in crate::store) async fn session_owner(&self, agent: &AgentId) -> Result<Option<Owner>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT s.instance, s.session, s.challenged, (i.id IS NOT NULL)::int::bigint AS alive
             FROM agent_sessions AS s LEFT JOIN instances AS i ON i.id = s.instance AND i.lease_ms > ",
            now_ms!(),
            " WHERE s.agent = $1"
        ))
        .bind(agent.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
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
            sqlx::query("SELECT agent, session FROM agent_sessions WHERE instance = $1 AND challenged = 1 LIMIT $2")
                .bind(instance)
                .bind(i64::from(MOST))
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        rows.iter().map(|row| Ok((row.parsed("agent")?, row.number("session")?))).collect()
    }

    pub(in crate::store) async fn owed_here(
        &self,
        instance: &str,
        sent_before_ms: u64,
        after: Option<&AgentId>,
    ) -> Result<Vec<Owed>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.agent, i.id, (i.state = 'queued')::int::bigint AS queued
             FROM agent_sessions AS s JOIN invocations AS i ON i.agent = s.agent AND i.seq IS NULL
             JOIN commands AS c ON c.n = i.command
             WHERE s.instance = $1 AND s.agent > $3 AND c.state <> 'awaiting_approval'
                 AND (i.state = 'queued' OR i.sent_ms < $2)
             ORDER BY s.agent LIMIT $4",
        )
        .bind(instance)
        .bind(int(sent_before_ms))
        .bind(after.map_or("", AgentId::as_str))
        .bind(i64::from(MOST))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let owed = |row: &PgRow| {
            let queued = row.flag("queued")?;
            Ok(Owed { agent: row.parsed("agent")?, invocation: row.parsed("id")?, queued })
        };
        rows.iter().map(owed).collect()
    }

    pub(in crate::store) async fn queued_here(
        &self,
        instance: &str,
        command: &CommandId,
    ) -> Result<Vec<AgentId>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.agent FROM commands AS c JOIN invocations AS i ON i.command = c.n AND i.state = 'queued'
             JOIN agent_sessions AS s ON s.agent = i.agent AND s.instance = $1
             WHERE c.id = $2",
        )
        .bind(instance)
        .bind(command.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| row.parsed("agent")).collect()
    }

    pub(in crate::store) async fn marks(&self, commands: &[CommandId]) -> Result<Vec<Mark>, StoreError> {
        let ids: Vec<&str> = commands.iter().map(CommandId::as_str).collect();
        let rows = sqlx::query(
            "SELECT id, last_seq, (finished_ms IS NOT NULL)::int::bigint AS finished,
                 cancel_requested::int::bigint AS cancel_requested,
                 (batch IS NOT NULL AND queued > 0)::int::bigint AS batched
             FROM commands WHERE id = ANY($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mark = |row: &PgRow| {
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
