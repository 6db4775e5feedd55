//! The end of a command that has one target, in one way to the engine's thread and back:
//! who waits for a single host waits for this. Leaves everything else to [`super::settle`].

use sqlx::SqliteConnection;

use super::rows;
use crate::store::StoreError;
use crate::store::model::InvocationState;
use crate::store::write::{Settled, Settlement, Verdict};

/// The only invocation of a command ends it: nothing is open then, and one outcome counts
/// one. The command first: the invocation is still open where the second statement looks.
const SETTLE: &str = "BEGIN IMMEDIATE;
    UPDATE commands SET state = ?1, finished_ms = ?2, last_seq = 1, queued = 0, sent = 0, running = 0,
        succeeded = (?3 = 'succeeded'), failed = (?3 = 'failed'), denied = (?3 = 'denied'),
        cancelled = (?3 = 'cancelled'), expired = (?3 = 'expired'), unknown = (?3 = 'unknown')
    WHERE targets = 1 AND n = (SELECT command FROM invocations WHERE id = ?4 AND agent = ?5 AND seq IS NULL)
    RETURNING n, id, verb, plugin, digest, also, mode, args, caller, state, created_ms, expires_ms,
        finished_ms, timeout_secs, batch, targets, targets_root, idempotency_key, request_sha256,
        plans, undo_of, undone_by, approvals_needed, approvals, cancel_requested, last_seq, queued,
        sent, running, succeeded, failed, denied, cancelled, expired, unknown;
    UPDATE invocations SET state = ?3, seq = 1, report = ?6, started_ms = coalesce(?7, started_ms), finished_ms = ?2,
        plan = ?8
    WHERE id = ?4 AND agent = ?5 AND seq IS NULL
        AND EXISTS (SELECT 1 FROM commands WHERE n = invocations.command AND targets = 1);
    INSERT OR IGNORE INTO receipts (agent, chain, seq, sha256, prev, boot, command, invocation, at_ms, fault, walked,
        envelope)
    SELECT ?5, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
        (SELECT c.id FROM invocations AS i JOIN commands AS c ON c.n = i.command WHERE i.id = ?4), ?4, ?2, j.value ->> 9,
        j.value ->> 10, j.value ->> 11
    FROM json_each(?9) AS j WHERE changes() = 1;
    COMMIT";

/// A list of one, or of none.
fn receipt(of: &Settlement) -> Result<Option<String>, StoreError> {
    let Some(new) = &of.receipt else { return Ok(None) };
    let row = crate::store::lists::receipt(&of.agent, "", of.invocation.as_str(), of.finished_ms, new);
    super::json(&[row]).map(Some)
}

/// `None`: it is no such command's, or not open, or not this agent's; nothing changed.
pub(super) async fn settle_one(
    conn: &mut SqliteConnection,
    settlement: &Settlement,
) -> Result<Option<Settled>, StoreError> {
    let state = match settlement.state {
        InvocationState::Cancelled => "cancelled",
        InvocationState::Expired => "expired",
        _ => "finished",
    };
    let finished_ms = super::int(settlement.finished_ms);
    let found = sqlx::query(SETTLE)
        .bind(state)
        .bind(finished_ms)
        .bind(settlement.state.as_str())
        .bind(settlement.invocation.as_str())
        .bind(settlement.agent.as_str())
        .bind(&settlement.report)
        .bind(settlement.started_ms.map(super::int))
        .bind(settlement.plan.as_deref())
        .bind(receipt(settlement)?)
        .fetch_all(conn)
        .await
        .map_err(StoreError::Statement)?;
    let Some(row) = found.first() else { return Ok(None) };
    let command = rows::command(row)?;
    let verdict = Verdict::Settled { command: command.id.clone(), ordinal: 0, seq: 1 };
    Ok(Some(Settled { verdicts: vec![verdict], commands: vec![command] }))
}
