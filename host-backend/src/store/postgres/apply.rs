//! Operations and notes to their statements, after the rows that a group is about are
//! locked in one order, so that instances seldom meet in a deadlock.

use sqlx::PgConnection;
use viworks_protocol::id::{CommandId, InvocationId};

use super::{
    accept, agents, approvals, cluster, expiry, failed, leases, ledger, plugins, prune, receipts, releases, settle,
    telemetry,
};
use crate::store::StoreError;
use crate::store::gather::{Gathered, gather};
use crate::store::write::{Answer, Note, Op};

/// Hold the rows of all commands whose invocations the group may change, until its commit.
/// Statements after this one see them as they are then.
pub(super) async fn lock(conn: &mut PgConnection, ops: &[&Op]) -> Result<(), StoreError> {
    let (mut invocations, mut commands) = (Vec::new(), Vec::new());
    for op in ops {
        match op {
            Op::Claim { invocations: claimed, .. } => invocations.extend(claimed.iter().map(InvocationId::as_str)),
            Op::Settle(settlements) => invocations.extend(settlements.iter().map(|s| s.invocation.as_str())),
            Op::Cancel { command, .. } | Op::Approve { command, .. } => commands.push(command.as_str()),
            Op::Accept(new) => commands.extend(new.command.undo_of.as_ref().map(CommandId::as_str)),
            _ => {}
        }
    }
    hold(conn, &invocations, &commands).await
}

async fn hold(conn: &mut PgConnection, invocations: &[&str], commands: &[&str]) -> Result<(), StoreError> {
    if invocations.is_empty() && commands.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "SELECT n FROM commands WHERE n IN
             (SELECT command FROM invocations WHERE id = ANY($1) UNION SELECT n FROM commands WHERE id = ANY($2))
         ORDER BY n FOR NO KEY UPDATE",
    )
    .bind(invocations)
    .bind(commands)
    .execute(conn)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) async fn op(conn: &mut PgConnection, op: &Op) -> Result<Answer, StoreError> {
    Ok(match op {
        Op::Accept(new) => Answer::Accepted(Box::new(accept::accept(conn, new).await?)),
        Op::Claim { invocations, now_ms } => Answer::Claimed(accept::claim(conn, invocations, *now_ms).await?),
        Op::Settle(settlements) => Answer::Settled(settle::settle(conn, settlements).await?),
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

pub(super) async fn notes(conn: &mut PgConnection, notes: &[Note]) -> Result<(), StoreError> {
    let Gathered { hellos, presence, statuses, running, samples, audit } = gather(notes);
    let invocations: Vec<&str> = running.iter().map(|(invocation, _, _)| invocation.as_str()).collect();
    hold(conn, &invocations, &[]).await?;
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
