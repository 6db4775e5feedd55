//! Operations and notes to their statements. Notes of a kind go together: one statement
//! for all of them.

use sqlx::SqliteConnection;

use super::{
    accept, agents, approvals, cluster, expiry, leases, ledger, plugins, prune, receipts, releases, settle, settle_one,
    telemetry,
};
use crate::store::StoreError;
use crate::store::gather::{Gathered, gather};
use crate::store::write::{Answer, Note, Op, Settlement};

/// An operation that is alone in its group, in a transaction of its own with fewer ways to
/// the engine's thread and back; `None` for those that know no such way. On an error the
/// transaction is still open.
pub(super) async fn alone(conn: &mut SqliteConnection, op: &Op) -> Option<Result<Answer, StoreError>> {
    match op {
        // An undo is compared with others and marks what it takes back: more than one statement.
        Op::Accept(new) if new.command.undo_of.is_none() => {
            Some(accept::accept(conn, new, true).await.map(|a| Answer::Accepted(Box::new(a))))
        }
        Op::Settle(settlements) => Some(settle_alone(conn, settlements).await),
        _ => None,
    }
}

async fn settle_alone(conn: &mut SqliteConnection, settlements: &[Settlement]) -> Result<Answer, StoreError> {
    if let [one] = settlements
        && let Some(settled) = settle_one::settle_one(conn, one).await?
    {
        return Ok(Answer::Settled(settled));
    }
    settle::settle(conn, settlements, true).await.map(Answer::Settled)
}

pub(super) async fn op(conn: &mut SqliteConnection, op: &Op) -> Result<Answer, StoreError> {
    Ok(match op {
        Op::Accept(new) => Answer::Accepted(Box::new(accept::accept(conn, new, false).await?)),
        Op::Claim { invocations, now_ms } => Answer::Claimed(accept::claim(conn, invocations, *now_ms).await?),
        Op::Settle(settlements) => Answer::Settled(settle::settle(conn, settlements, false).await?),
        Op::Cancel { command, now_ms, audit } => {
            let cancelled = expiry::cancel(conn, command, *now_ms).await?;
            if cancelled.is_some() {
                ledger::audit(conn, &[audit]).await?;
            }
            Answer::Cancelled(cancelled.map(Box::new))
        }
        Op::Approve { command, approved, audit } => {
            Answer::Approved(approvals::approve(conn, command, approved, audit).await?.map(Box::new))
        }
        Op::AddApprover { approver, audit } => Answer::Done(approvals::add(conn, approver, audit).await?),
        Op::RemoveApprover { key, audit } => Answer::Done(approvals::remove(conn, key, audit).await?),
        Op::WalkReceipts { now_ms } => Answer::Walked(receipts::walk(conn, *now_ms).await?),
        Op::Anchor { anchor, ends } => {
            receipts::anchor(conn, anchor, ends).await?;
            Answer::Done(true)
        }
        Op::Expire { now_ms, grace_ms } => Answer::Expired(expiry::expire(conn, *now_ms, *grace_ms).await?),
        Op::Publish(new) => Answer::Published(Box::new(plugins::publish(conn, new).await?)),
        Op::Deactivate { plugin, audit } => Answer::Done(plugins::deactivate(conn, plugin, audit).await?),
        Op::Release(change) => Answer::Released(releases::apply(conn, change).await?.map(Box::new)),
        Op::CreateToken { token, audit } => Answer::Done(ledger::create_token(conn, token, audit).await?),
        Op::RevokeToken { name, audit } => Answer::Done(ledger::revoke_token(conn, name, audit).await?),
        Op::MarkStale { before_ms, now_ms } => Answer::Agents(agents::mark_stale(conn, *before_ms, *now_ms).await?),
        Op::AllOffline { instance } => Answer::Done(leases::all_offline(conn, instance).await?),
        Op::Beat { instance, ttl_ms } => Answer::Beaten(leases::beat(conn, instance, *ttl_ms).await?),
        Op::Leave { instance } => Answer::Done(leases::leave(conn, instance).await?),
        Op::Lease { name, holder, ttl_ms } => Answer::Done(leases::lease(conn, name, holder, *ttl_ms).await?),
        Op::GiveUp { name, holder } => Answer::Done(leases::give_up(conn, name, holder).await?),
        Op::Cluster(change) => Answer::Cluster(cluster::apply(conn, change).await?),
        Op::Prune(horizon) => Answer::Pruned(prune::prune(conn, horizon).await?),
        Op::Probe { now_ms } => Answer::Probed(ledger::probe(conn, *now_ms).await?),
        Op::Flush => Answer::Done(true),
    })
}

pub(super) async fn notes(conn: &mut SqliteConnection, notes: &[Note]) -> Result<(), StoreError> {
    let Gathered { hellos, presence, statuses, running, samples, audit } = gather(notes);
    if !hellos.is_empty() {
        agents::hello(conn, &hellos.into_values().collect::<Vec<_>>()).await?;
    }
    if !presence.is_empty() {
        agents::presence(conn, &presence).await?;
    }
    if !statuses.is_empty() {
        agents::statuses(conn, &statuses).await?;
    }
    if !running.is_empty() {
        settle::running(conn, &running).await?;
    }
    if !samples.is_empty() {
        telemetry::insert(conn, &samples).await?;
    }
    if !audit.is_empty() {
        ledger::audit(conn, &audit).await?;
    }
    Ok(())
}
