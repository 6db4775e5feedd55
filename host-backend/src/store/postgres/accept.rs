//! A command and all its invocations in one statement, whatever their number; and the
//! claim of queued ones for delivery. A key that another instance stores at the same time
//! is waited for and found.

use sqlx::PgConnection;
use std::collections::BTreeMap;
use viworks_protocol::id::{CommandId, InvocationId};
use viworks_protocol::warrant::Mode;

use super::rows::{self, RowExt as _, command_columns};
use super::settle::touch;
use super::{failed, int, json, list, plain};
use crate::store::model::{Command, CommandState, IdempotencyKey, InvocationState};
use crate::store::moves::Delta;
use crate::store::write::{Acceptance, Claimed, NewCommand};
use crate::store::{StoreError, lists};

const ACCEPT: &str = "WITH stored AS (
        INSERT INTO commands (id, created_ms, verb, plugin, digest, mode, args, caller, idempotency_key, state,
            expires_ms, due_ms, timeout_secs, batch, targets, targets_root, queued, sent, request_sha256, plans,
            undo_of, approvals_needed, also)
        VALUES ($1, $2, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
            $24)
        ON CONFLICT (caller, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING n),
    placed AS (
        INSERT INTO invocations (command, ordinal, id, agent, state, sent_ms)
        SELECT stored.n, j.place - 1, j.value ->> 0, j.value ->> 1,
            CASE WHEN j.value ->> 2 = '1' THEN 'sent' ELSE 'queued' END, CASE WHEN j.value ->> 2 = '1' THEN $2 END
        FROM stored CROSS JOIN jsonb_array_elements($3::jsonb) WITH ORDINALITY AS j (value, place)),
    told AS (
        INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
        SELECT (j.value ->> 0)::bigint, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5
        FROM stored CROSS JOIN jsonb_array_elements($4::jsonb) WITH ORDINALITY AS j (value, place) ORDER BY j.place)
    SELECT n FROM stored";

pub(super) async fn accept(conn: &mut PgConnection, new: &NewCommand) -> Result<Acceptance, StoreError> {
    let mut command = new.command.clone();
    if let Some(key) = &command.idempotency_key
        && let Some(before) = by_key(conn, &command.caller, key).await?
    {
        return Ok(before);
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
    if insert(conn, &command, new).await? {
        return Ok(Acceptance::Stored(command));
    }
    // Another instance stored the key between the look and the statement.
    match &command.idempotency_key {
        Some(key) => by_key(conn, &command.caller, key).await?,
        None => None,
    }
    .ok_or(StoreError::Taken("the command".to_owned()))
}

async fn by_key(conn: &mut PgConnection, caller: &str, key: &IdempotencyKey) -> Result<Option<Acceptance>, StoreError> {
    let before = sqlx::query(concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands AS c WHERE c.caller = $1 AND c.idempotency_key = $2"
    ))
    .bind(caller)
    .bind(plain(&key.key))
    .fetch_optional(conn)
    .await
    .map_err(failed)?;
    let Some(row) = before else { return Ok(None) };
    let before = rows::command(&row)?;
    let same = before.idempotency_key.as_ref().is_some_and(|k| k.request_sha256 == key.request_sha256);
    Ok(Some(if same { Acceptance::Replayed(before) } else { Acceptance::KeyReused(before.id) }))
}

async fn insert(conn: &mut PgConnection, command: &Command, new: &NewCommand) -> Result<bool, StoreError> {
    let stored = sqlx::query(ACCEPT)
        .bind(command.id.as_str())
        .bind(int(command.created_ms))
        .bind(lists::targets(new))
        .bind(list(lists::audit(&[&new.audit])?))
        .bind(&command.verb)
        .bind(&command.plugin)
        .bind(&command.digest)
        .bind(command.mode.as_str())
        .bind(list(command.args.clone()))
        .bind(&command.caller)
        .bind(command.idempotency_key.as_ref().map(|k| plain(&k.key)))
        .bind(command.state.as_str())
        .bind(int(command.expires_ms))
        .bind(i64::from(command.timeout_secs))
        .bind(command.batch.map(i64::from))
        .bind(i64::from(command.targets))
        .bind(&command.targets_root)
        .bind(i64::from(command.counts.queued))
        .bind(i64::from(command.counts.sent))
        .bind(command.idempotency_key.as_ref().map(|k| &k.request_sha256))
        .bind(json(&command.plans)?)
        .bind(command.undo_of.as_ref().map(CommandId::as_str))
        .bind(i64::from(command.approvals_needed))
        .bind(json(&command.also)?)
        .fetch_optional(conn)
        .await
        .map_err(failed)?;
    Ok(stored.is_some())
}

/// Mark what is taken back, whose row is held; answers who is at it already.
async fn undo(conn: &mut PgConnection, of: &CommandId, by: &CommandId) -> Result<Option<CommandId>, StoreError> {
    let other = sqlx::query(
        "SELECT id FROM commands WHERE undo_of = $1 AND mode = 'apply' AND finished_ms IS NULL ORDER BY id LIMIT 1",
    )
    .bind(of.as_str())
    .fetch_optional(&mut *conn)
    .await
    .map_err(failed)?;
    if let Some(row) = other {
        return row.parsed("id").map(Some);
    }
    sqlx::query("UPDATE commands SET undone_by = $2 WHERE id = $1")
        .bind(of.as_str())
        .bind(by.as_str())
        .execute(&mut *conn)
        .await
        .map_err(failed)?;
    Ok(None)
}

pub(super) async fn claim(
    conn: &mut PgConnection,
    invocations: &[InvocationId],
    now_ms: u64,
) -> Result<Claimed, StoreError> {
    let ids: Vec<&str> = invocations.iter().map(InvocationId::as_str).collect();
    let claimed = sqlx::query(
        // Of a batch as many as have room: the commands are held, others claim of them later.
        "UPDATE invocations SET state = 'sent', sent_ms = $1
         WHERE id IN (SELECT id FROM (SELECT i.id, c.batch - c.sent - c.running AS room,
                 row_number() OVER (PARTITION BY i.command ORDER BY i.ordinal) AS n
             FROM invocations AS i JOIN commands AS c ON c.n = i.command
             WHERE i.id = ANY($2) AND i.state = 'queued') AS w WHERE room IS NULL OR n <= room)
         AND state = 'queued' RETURNING command, id",
    )
    .bind(int(now_ms))
    .bind(ids)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    let mut out = Claimed::default();
    for row in &claimed {
        deltas.entry(row.signed("command")?).or_default().moved(InvocationState::Queued, InvocationState::Sent);
        out.invocations.push(row.parsed("id")?);
    }
    out.commands = touch(conn, &deltas, now_ms).await?;
    Ok(out)
}
