//! What instances share. One file is used by one instance outside of tests; the statements
//! are the same in meaning as the other engine's.

use sqlx::SqliteConnection;
use viworks_protocol::id::{AgentId, CommandId};

use super::rows::RowExt as _;
use super::{Readers, int, json};
use crate::store::StoreError;
use crate::store::cluster::{BURY_AFTER, Beat, Beaten, Change, Done, MOST, Mark, Owed, Owner, Stamps};

/// The database's time in Unix milliseconds.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

fn ms(of: std::time::Duration) -> i64 {
    i64::try_from(of.as_millis()).unwrap_or(i64::MAX)
}

pub(super) async fn apply(conn: &mut SqliteConnection, change: &Change) -> Result<Done, StoreError> {
    match change {
        Change::Beat(beat) => self::beat(conn, beat).await.map(Done::Beaten),
        Change::Leave { instance } => {
            offline(conn, &[instance.to_string()]).await?;
            for sql in ["DELETE FROM leases WHERE instance = ?1", "DELETE FROM instances WHERE id = ?1"] {
                sqlx::query(sql).bind(&**instance).execute(&mut *conn).await.map_err(StoreError::Statement)?;
            }
            Ok(Done::Is(true))
        }
        Change::Lease { name, instance, ttl } => {
            let done = sqlx::query(concat!(
                "INSERT INTO leases (name, instance, until_ms) VALUES (?1, ?2, ",
                now!(),
                " + ?3) ON CONFLICT (name) DO UPDATE SET instance = excluded.instance, until_ms = excluded.until_ms
                 WHERE leases.instance = excluded.instance OR leases.until_ms <= ",
                now!()
            ))
            .bind(name)
            .bind(&**instance)
            .bind(ms(*ttl));
            changed(conn, done).await
        }
        Change::Yield { name, instance } => {
            let done = sqlx::query("DELETE FROM leases WHERE name = ?1 AND instance = ?2").bind(name).bind(&**instance);
            changed(conn, done).await
        }
        Change::Claim { instance, sessions } => claim(conn, instance, sessions).await,
        Change::Challenge { agent } => {
            let done = sqlx::query("UPDATE agent_sessions SET challenged = 1 WHERE agent = ?1").bind(agent.as_str());
            changed(conn, done).await
        }
        Change::Confirm { instance, sessions } => {
            let done = sqlx::query(
                "UPDATE agent_sessions SET challenged = 0 FROM json_each(?2) AS j
                 WHERE agent = j.value ->> 0 AND session = j.value ->> 1 AND instance = ?1",
            )
            .bind(&**instance)
            .bind(json(sessions)?);
            changed(conn, done).await
        }
        Change::Disown { instance, sessions } => {
            gone(conn, sessions.iter().map(|(agent, session)| (agent, &**instance, *session))).await?;
            Ok(Done::Is(true))
        }
        Change::Name { candidate } => {
            let row = sqlx::query(
                "INSERT INTO instance_group (one, name) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET name = name
                 RETURNING name",
            )
            .bind(candidate)
            .fetch_one(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
            row.text("name").map(Done::Name)
        }
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

async fn changed(conn: &mut SqliteConnection, query: Query<'_>) -> Result<Done, StoreError> {
    let done = query.execute(conn).await.map_err(StoreError::Statement)?;
    Ok(Done::Is(done.rows_affected() > 0))
}

async fn beat(conn: &mut SqliteConnection, beat: &Beat) -> Result<Beaten, StoreError> {
    let before = sqlx::query(concat!("SELECT boot, until_ms > ", now!(), " AS lives FROM instances WHERE id = ?1"))
        .bind(&*beat.instance)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let (mine, lives) = match &before {
        Some(row) => (row.text("boot")? == beat.boot, row.flag("lives")?),
        None => (false, false),
    };
    if lives && !mine {
        return Ok(Beaten { taken: true, ..Beaten::default() });
    }
    if !mine {
        // Sessions of an earlier process of this name are none of this one's.
        offline(conn, &[beat.instance.to_string()]).await?;
    }
    sqlx::query(concat!(
        "INSERT INTO instances (id, boot, warrant_key, until_ms) VALUES (?1, ?2, ?3, ",
        now!(),
        " + ?4) ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, warrant_key = excluded.warrant_key,
             until_ms = excluded.until_ms"
    ))
    .bind(&*beat.instance)
    .bind(&beat.boot)
    .bind(&beat.warrant_key)
    .bind(ms(beat.ttl))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let buried = sqlx::query(concat!("DELETE FROM instances WHERE until_ms < ", now!(), " - ?1 RETURNING id"))
        .bind(ms(BURY_AFTER))
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let buried = buried.iter().map(|row| row.text("id")).collect::<Result<Vec<_>, _>>()?;
    if !buried.is_empty() {
        offline(conn, &buried).await?;
    }
    let others = sqlx::query(concat!("SELECT id, warrant_key FROM instances WHERE id <> ?1 AND until_ms > ", now!()))
        .bind(&*beat.instance)
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let others = others.iter().map(|row| Ok((row.text("id")?, row.text("warrant_key")?)));
    Ok(Beaten { lapsed: !(mine && lives), taken: false, buried, others: others.collect::<Result<_, StoreError>>()? })
}

/// Sessions of these instances are over.
async fn offline(conn: &mut SqliteConnection, instances: &[String]) -> Result<(), StoreError> {
    let list = json(&instances)?;
    for sql in [
        "UPDATE agents SET online = 0 WHERE online = 1 AND id IN
             (SELECT agent FROM agent_sessions WHERE instance IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM agent_sessions WHERE instance IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(&list).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    }
    Ok(())
}

async fn claim(conn: &mut SqliteConnection, instance: &str, sessions: &[(AgentId, u64)]) -> Result<Done, StoreError> {
    let rows = sqlx::query(concat!(
        "INSERT INTO agent_sessions (agent, instance, session)
         SELECT value ->> 0, ?1, value ->> 1 FROM json_each(?2) WHERE true
         ON CONFLICT (agent) DO UPDATE SET instance = excluded.instance, session = excluded.session, challenged = 0
         WHERE agent_sessions.instance = excluded.instance OR NOT EXISTS
             (SELECT 1 FROM instances AS i WHERE i.id = agent_sessions.instance AND i.until_ms > ",
        now!(),
        ") RETURNING agent"
    ))
    .bind(instance)
    .bind(json(&sessions)?)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    rows.iter().map(|row| row.parsed("agent")).collect::<Result<_, _>>().map(Done::Agents)
}

/// These sessions are over; whoever has a newer one keeps it.
pub(super) async fn gone(
    conn: &mut SqliteConnection,
    sessions: impl Iterator<Item = (&AgentId, &str, u64)>,
) -> Result<(), StoreError> {
    let list: Vec<_> = sessions.collect();
    if list.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM agent_sessions WHERE EXISTS (SELECT 1 FROM json_each(?1) AS j WHERE j.value ->> 0 = agent
             AND j.value ->> 1 = instance AND j.value ->> 2 = session)
         AND agent IN (SELECT value ->> 0 FROM json_each(?1))",
    )
    .bind(json(&list)?)
    .execute(conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
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
             LEFT JOIN instances AS i ON i.id = s.instance AND i.until_ms > ",
            now!(),
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

    pub(in crate::store) async fn cancelling(&self) -> Result<Vec<CommandId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM commands WHERE cancel_requested = 1 AND finished_ms IS NULL ORDER BY id DESC LIMIT ?1",
        )
        .bind(MOST)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        rows.iter().map(|row| row.parsed("id")).collect()
    }

    pub(in crate::store) async fn marks(&self, commands: &[CommandId]) -> Result<Vec<Mark>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.id, c.last_seq, c.finished_ms IS NOT NULL AS finished
             FROM json_each(?1) AS j CROSS JOIN commands AS c ON c.id = j.value",
        )
        .bind(json(&commands)?)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let mark = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Mark { command: row.parsed("id")?, last_seq: row.number("last_seq")?, finished: row.flag("finished")? })
        };
        rows.iter().map(mark).collect()
    }
}
