//! A command and all its invocations in one go, whatever their number; and the
//! claim of queued ones for delivery.

use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeMap;
use viworks_protocol::id::{CommandId, InvocationId};
use viworks_protocol::warrant::Mode;

use super::rows::{self, RowExt as _, command_columns};
use super::settle::touch;
use super::{int, json};
use crate::store::model::{CommandState, InvocationState};
use crate::store::moves::Delta;
use crate::store::write::{Acceptance, Claimed, NewCommand};
use crate::store::{StoreError, lists};

/// The command, its invocations and its audit entry, given to the engine's thread at once:
/// each way there and back costs as much as a statement. What several statements take has
/// the lowest numbers: sqlx counts the numbers that a statement leaves out over all of
/// them, and stops binding when they are more than there are values.
macro_rules! statements {
    () => {
        "INSERT INTO commands (id, created_ms, verb, plugin, digest, mode, args, caller, idempotency_key, state,
             expires_ms, due_ms, timeout_secs, batch, targets, targets_root, queued, sent, request_sha256, plans,
             undo_of, approvals_needed, also)
         VALUES (?1, ?2, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24);
         INSERT INTO invocations (command, ordinal, id, agent, state, sent_ms)
         SELECT (SELECT n FROM commands WHERE id = ?1), key, value ->> 0, value ->> 1,
             iif(value ->> 2, 'sent', 'queued'), iif(value ->> 2, ?2, NULL)
         FROM json_each(?3);
         INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
         FROM json_each(?4) ORDER BY key"
    };
}

const STATEMENTS: &str = statements!();
const ALONE: &str = concat!("BEGIN IMMEDIATE; ", statements!(), "; COMMIT");

/// Store a command. `alone`: in a transaction of its own, which is committed here; the
/// look for an earlier one with its key needs no transaction, since nobody else writes.
pub(super) async fn accept(
    conn: &mut SqliteConnection,
    new: &NewCommand,
    alone: bool,
) -> Result<Acceptance, StoreError> {
    let mut command = new.command.clone();
    if let Some(key) = &command.idempotency_key {
        let before = sqlx::query(concat!(
            "SELECT ",
            command_columns!(),
            " FROM commands AS c WHERE c.caller = ?1 AND c.idempotency_key = ?2"
        ))
        .bind(&command.caller)
        .bind(&key.key)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
        if let Some(row) = before {
            let before = rows::command(&row)?;
            let same = before.idempotency_key == command.idempotency_key;
            return Ok(if same { Acceptance::Replayed(before) } else { Acceptance::KeyReused(before.id) });
        }
    }

    if let Some(of) = command.undo_of.as_ref().filter(|_| command.mode == Mode::Apply)
        && let Some(other) = undo(conn, of, &command.id).await?
    {
        return Ok(Acceptance::BeingUndone(other));
    }

    let sent = u32::try_from(new.targets.iter().filter(|t| t.deliver).count()).unwrap_or(u32::MAX);
    command.counts.sent = sent;
    command.counts.queued = command.targets - sent;
    command.state = match sent {
        _ if command.is_awaiting() => CommandState::AwaitingApproval,
        0 => CommandState::Queued,
        _ => CommandState::Running,
    };
    sqlx::query(if alone { ALONE } else { STATEMENTS })
        .bind(command.id.as_str())
        .bind(int(command.created_ms))
        .bind(lists::targets(new))
        .bind(lists::audit(&[&new.audit])?)
        .bind(&command.verb)
        .bind(&command.plugin)
        .bind(&command.digest)
        .bind(command.mode.as_str())
        .bind(&command.args)
        .bind(&command.caller)
        .bind(command.idempotency_key.as_ref().map(|k| &k.key))
        .bind(command.state.as_str())
        .bind(int(command.expires_ms))
        .bind(command.timeout_secs)
        .bind(command.batch)
        .bind(command.targets)
        .bind(&command.targets_root)
        .bind(command.counts.queued)
        .bind(command.counts.sent)
        .bind(command.idempotency_key.as_ref().map(|k| &k.request_sha256))
        .bind(json(&command.plans)?)
        .bind(command.undo_of.as_ref().map(CommandId::as_str))
        .bind(command.approvals_needed)
        .bind(json(&command.also)?)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    Ok(Acceptance::Stored(command))
}

/// Mark what is taken back; answers who is at it already.
async fn undo(conn: &mut SqliteConnection, of: &CommandId, by: &CommandId) -> Result<Option<CommandId>, StoreError> {
    let other = sqlx::query(
        "SELECT id FROM commands WHERE undo_of = ?1 AND mode = 'apply' AND finished_ms IS NULL ORDER BY id LIMIT 1",
    )
    .bind(of.as_str())
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if let Some(row) = other {
        return row.parsed("id").map(Some);
    }
    sqlx::query("UPDATE commands SET undone_by = ?2 WHERE id = ?1")
        .bind(of.as_str())
        .bind(by.as_str())
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    Ok(None)
}

pub(super) async fn claim(
    conn: &mut SqliteConnection,
    invocations: &[InvocationId],
    now_ms: u64,
) -> Result<Claimed, StoreError> {
    let claimed = sqlx::query(
        // Of a batch as many as have room: others may claim of it too.
        "UPDATE invocations SET state = 'sent', sent_ms = ?1
         WHERE id IN (SELECT id FROM (SELECT i.id, c.batch - c.sent - c.running AS room,
                 row_number() OVER (PARTITION BY i.command ORDER BY i.ordinal) AS n
             FROM json_each(?2) AS j CROSS JOIN invocations AS i ON i.id = j.value AND i.state = 'queued'
             CROSS JOIN commands AS c ON c.n = i.command) WHERE room IS NULL OR n <= room)
         RETURNING command, id",
    )
    .bind(int(now_ms))
    .bind(json(&invocations)?)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    let mut out = Claimed::default();
    for row in &claimed {
        let command = row.try_get("command").map_err(StoreError::Statement)?;
        deltas.entry(command).or_default().moved(InvocationState::Queued, InvocationState::Sent);
        out.invocations.push(row.parsed("id")?);
    }
    out.commands = touch(conn, &deltas, now_ms).await?;
    Ok(out)
}
