//! The connection that writes, and its loss. A group that another instance got in the way
//! of is done again; one whose connection was lost is done again on a new one, and never
//! twice: where the commit's answer was lost, the server is asked what became of it. While
//! the server is away, callers are told so after a bounded wait.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

use super::{Kind, apply, connect, kind};
use crate::store::StoreError;
use crate::store::write::{Answer, Note, Op};

/// So long a group waits for a server that has just gone, and for one that is away.
const PATIENCE: Duration = Duration::from_secs(8);
const IMPATIENCE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A group that takes longer is lost.
const GROUP_WITHIN: Duration = Duration::from_secs(20);
const CONTENDED_TIMES: u32 = 8;
/// What became of a commit is known by then.
const DOUBT_WITHIN: Duration = Duration::from_secs(5);

/// The one connection of this instance that can write.
#[derive(Debug)]
pub(in crate::store) struct Writable {
    options: PgConnectOptions,
    /// Of this connection and its predecessors alone.
    name: String,
    conn: Option<PgConnection>,
    /// There was one before.
    lost: bool,
    away: bool,
    retries: Retries,
}

/// Groups that were done again, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Retries {
    pub contended: u64,
    pub lost: u64,
}

/// What a transaction is for.
#[derive(Clone, Copy)]
enum Group<'a> {
    Ops(&'a [&'a Op]),
    Notes(&'a [Note]),
}

/// A commit without an answer.
struct Doubt {
    transaction: String,
    answers: Vec<Answer>,
}

impl Writable {
    pub(super) fn new(options: PgConnectOptions) -> Result<Self, StoreError> {
        let mut own = [0; 8];
        getrandom::fill(&mut own).map_err(|e| StoreError::Open(sqlx::Error::Configuration(e.to_string().into())))?;
        let name = format!("viworks-writer-{}", hex::encode(own));
        let options = options.application_name(&name);
        Ok(Self { options, name, conn: None, lost: false, away: false, retries: Retries::default() })
    }

    /// Apply `ops` in one transaction: all or none.
    pub(in crate::store) async fn commit(&mut self, ops: &[&Op]) -> Result<Vec<Answer>, StoreError> {
        self.write(Group::Ops(ops)).await
    }

    /// Apply `notes` in one transaction: all or none.
    pub(in crate::store) async fn write_notes(&mut self, notes: &[Note]) -> Result<(), StoreError> {
        self.write(Group::Notes(notes)).await.map(drop)
    }

    /// What happened since it was asked before.
    pub(in crate::store) fn take_retries(&mut self) -> Retries {
        std::mem::take(&mut self.retries)
    }

    pub(in crate::store) async fn reopen(&mut self) -> Result<(), StoreError> {
        self.conn = None;
        self.lost = true;
        Ok(())
    }

    pub(in crate::store) async fn close(self) {
        if let Some(conn) = self.conn
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "the database's connection did not close cleanly");
        }
    }

    async fn write(&mut self, group: Group<'_>) -> Result<Vec<Answer>, StoreError> {
        let until = Instant::now() + if self.away { IMPATIENCE } else { PATIENCE };
        let (mut pause, mut contended, mut doubt) = (FIRST_PAUSE, 0, None);
        loop {
            let error = match self.attempt(group, &mut doubt).await {
                Ok(answers) => {
                    if std::mem::take(&mut self.away) {
                        tracing::info!("the database is back");
                    }
                    return Ok(answers);
                }
                Err(error) => error,
            };
            match error {
                StoreError::Statement(ref cause) if kind(cause) == Kind::Contended => {
                    contended += 1;
                    self.retries.contended += 1;
                    if contended > CONTENDED_TIMES {
                        return Err(error);
                    }
                }
                StoreError::Unavailable(cause) => {
                    self.conn = None;
                    self.lost = true;
                    if Instant::now() >= until {
                        if !std::mem::replace(&mut self.away, true) {
                            tracing::error!(error = &cause as &dyn std::error::Error, "the database is away");
                        }
                        return Err(StoreError::Unavailable(cause));
                    }
                    self.retries.lost += 1;
                }
                error => return Err(error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Once; the connection is kept where it can be used again.
    async fn attempt(&mut self, group: Group<'_>, doubt: &mut Option<Doubt>) -> Result<Vec<Answer>, StoreError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        if let Some(before) = doubt.take() {
            match outcome(&mut conn, &before.transaction).await {
                Ok(true) => {
                    self.conn = Some(conn);
                    return Ok(before.answers);
                }
                Ok(false) => {}
                Err(error) => {
                    *doubt = Some(before);
                    return Err(error);
                }
            }
        }
        let done = timeout(GROUP_WITHIN, transaction(&mut conn, group, doubt)).await;
        match done {
            Ok(Ok(answers)) => {
                self.conn = Some(conn);
                Ok(answers)
            }
            Ok(Err(error @ StoreError::Unavailable(_))) => Err(error),
            Ok(Err(error)) => {
                // The server answered: nothing of it stands.
                *doubt = None;
                match timeout(GROUP_WITHIN, sqlx::raw_sql("ROLLBACK").execute(&mut conn)).await {
                    Ok(Ok(_)) => self.conn = Some(conn),
                    _ => self.lost = true,
                }
                Err(error)
            }
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    /// A new connection. What a lost one left at the server is ended: it may hold rows, and
    /// must not go on later.
    async fn connect(&mut self) -> Result<PgConnection, StoreError> {
        let mut conn = connect(&self.options).await.map_err(StoreError::Unavailable)?;
        if self.lost {
            let ended = sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = $1 AND pid <> pg_backend_pid() AND usename = current_user",
            )
            .bind(&self.name)
            .execute(&mut conn);
            match timeout(DOUBT_WITHIN, ended).await {
                Ok(ended) => {
                    ended.map_err(StoreError::Unavailable)?;
                }
                Err(_) => return Err(StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
            }
        }
        Ok(conn)
    }
}

async fn transaction(
    conn: &mut PgConnection,
    group: Group<'_>,
    doubt: &mut Option<Doubt>,
) -> Result<Vec<Answer>, StoreError> {
    let begun = sqlx::raw_sql("BEGIN; SELECT pg_current_xact_id()::text").fetch_all(&mut *conn).await;
    let begun = begun.map_err(super::failed)?;
    let transaction: String = match begun.first() {
        Some(row) => sqlx::Row::try_get(row, 0).map_err(super::failed)?,
        None => return Err(StoreError::Corrupt { what: "transaction", text: String::new() }),
    };
    let mut answers = Vec::new();
    match group {
        Group::Ops(ops) => {
            apply::lock(conn, ops).await?;
            answers.reserve(ops.len());
            for op in ops {
                answers.push(apply::op(conn, op).await?);
            }
        }
        Group::Notes(notes) => apply::notes(conn, notes).await?,
    }
    // From here on only the server knows, until its answer is here.
    *doubt = Some(Doubt { transaction, answers });
    sqlx::raw_sql("COMMIT").execute(&mut *conn).await.map_err(super::failed)?;
    Ok(doubt.take().map(|of| of.answers).unwrap_or_default())
}

/// Whether a transaction was committed, once that is settled.
async fn outcome(conn: &mut PgConnection, transaction: &str) -> Result<bool, StoreError> {
    let asked = async {
        loop {
            let status: Option<String> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
                .bind(transaction)
                .fetch_one(&mut *conn)
                .await
                .map_err(StoreError::Unavailable)?;
            match status.as_deref() {
                Some("committed") => return Ok(true),
                Some("in progress") => sleep(FIRST_PAUSE).await,
                _ => return Ok(false),
            }
        }
    };
    match timeout(DOUBT_WITHIN, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}
