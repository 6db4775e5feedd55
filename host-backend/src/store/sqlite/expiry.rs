//! Ends that nobody reported: expired (never delivered), unknown (delivered, and no
//! result in time), cancelled (before delivery).

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::BTreeMap;
use viworks_protocol::id::CommandId;
use viworks_protocol::outcome::{Outcome, Report};

use super::rows::RowExt as _;
use super::settle::{Delta, End, touch, write_ends};
use super::{int, json};
use crate::store::StoreError;
use crate::store::model::InvocationState;
use crate::store::write::{Cancelled, Expired};

const COMMANDS_A_PASS: i64 = 64;
const INVOCATIONS_A_PASS: i64 = 20_000;

fn report(outcome: Outcome, message: &str, now_ms: u64) -> Result<String, StoreError> {
    json(&Report::refused(outcome, outcome.as_str(), message, now_ms))
}

#[derive(Clone, Copy)]
struct Times {
    expires_ms: u64,
    /// No result is awaited after this.
    ends_ms: u64,
    last_seq: u64,
}

pub(super) async fn expire(conn: &mut SqliteConnection, now_ms: u64, grace_ms: u64) -> Result<Expired, StoreError> {
    let due = sqlx::query(
        "SELECT n, expires_ms, timeout_secs, last_seq FROM commands
         WHERE finished_ms IS NULL AND due_ms <= ?1 ORDER BY due_ms LIMIT ?2",
    )
    .bind(int(now_ms))
    .bind(COMMANDS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if due.is_empty() {
        return Ok(Expired::default());
    }
    let mut times = BTreeMap::new();
    for row in &due {
        let n: i64 = row.try_get("n").map_err(StoreError::Statement)?;
        let expires_ms = row.number("expires_ms")?;
        let ends_ms = expires_ms + row.number("timeout_secs")? * 1_000 + grace_ms;
        times.insert(n, Times { expires_ms, ends_ms, last_seq: row.number("last_seq")? });
    }
    // The wanted ones only: an invocation that still may answer must not fill the pass.
    let wanted: Vec<_> = times
        .iter()
        .flat_map(|(n, t)| {
            let late = t.ends_ms <= now_ms;
            [(*n, "queued", true), (*n, "sent", late), (*n, "running", late)]
        })
        .filter(|(_, _, wanted)| *wanted)
        .collect();
    let open = sqlx::query(
        "SELECT i.command, i.ordinal, i.state FROM json_each(?1) AS j
         CROSS JOIN invocations AS i ON i.command = j.value ->> 0 AND i.state = j.value ->> 1 LIMIT ?2",
    )
    .bind(json(&wanted)?)
    .bind(INVOCATIONS_A_PASS)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;

    let never = report(Outcome::Expired, "never delivered before it expired", now_ms)?;
    let silent = report(Outcome::Unknown, "delivered, and no result came in time", now_ms)?;
    let more = open.len() as i64 == INVOCATIONS_A_PASS || due.len() as i64 == COMMANDS_A_PASS;
    let mut out = Expired { more, ..Expired::default() };
    let (mut ends, mut deltas) = (Vec::with_capacity(open.len()), BTreeMap::<i64, Delta>::new());
    for row in &open {
        let (command, ordinal, from) = place(row)?;
        let Some(t) = times.get_mut(&command) else { continue };
        let (to, report) = match from {
            InvocationState::Queued => (InvocationState::Expired, &never),
            _ => (InvocationState::Unknown, &silent),
        };
        *(if to == InvocationState::Expired { &mut out.expired } else { &mut out.unknown }) += 1;
        t.last_seq += 1;
        deltas.entry(command).or_default().settled(from, to, t.last_seq);
        ends.push(End {
            command,
            ordinal,
            state: to,
            seq: t.last_seq,
            report,
            plan: None,
            started_ms: None,
            finished_ms: now_ms,
        });
    }
    if (open.len() as i64) < INVOCATIONS_A_PASS {
        for (n, t) in &times {
            debug_assert!(t.expires_ms <= now_ms, "due means expired");
            deltas.entry(*n).or_default().due(t.ends_ms.max(now_ms + 1));
        }
    }
    write_ends(conn, &ends).await?;
    out.commands = touch(conn, &deltas, now_ms).await?;
    Ok(out)
}

pub(super) async fn cancel(
    conn: &mut SqliteConnection,
    command: &CommandId,
    now_ms: u64,
) -> Result<Option<Cancelled>, StoreError> {
    let row = sqlx::query("SELECT n, last_seq, finished_ms FROM commands WHERE id = ?1")
        .bind(command.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    let Some(row) = row else { return Ok(None) };
    let n: i64 = row.try_get("n").map_err(StoreError::Statement)?;
    let mut seq = row.number("last_seq")?;
    let ended = row.maybe_number("finished_ms")?.is_some();

    let open = sqlx::query(
        "SELECT command, ordinal, state, id, agent FROM invocations
         WHERE command = ?1 AND state IN ('queued', 'sent', 'running')",
    )
    .bind(n)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let text = report(Outcome::Cancelled, "cancelled before it was delivered", now_ms)?;
    let (mut ends, mut in_flight, mut delta) = (Vec::new(), Vec::new(), Delta::default());
    for row in &open {
        let (command, ordinal, from) = place(row)?;
        if from != InvocationState::Queued {
            in_flight.push((row.parsed("agent")?, row.parsed("id")?));
            continue;
        }
        seq += 1;
        delta.settled(from, InvocationState::Cancelled, seq);
        let state = InvocationState::Cancelled;
        ends.push(End {
            command,
            ordinal,
            state,
            seq,
            report: &text,
            plan: None,
            started_ms: None,
            finished_ms: now_ms,
        });
    }
    if !ended {
        delta.cancel();
    }
    write_ends(conn, &ends).await?;
    let settled = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let commands = touch(conn, &BTreeMap::from([(n, delta)]), now_ms).await?;
    Ok(commands.into_iter().next().map(|command| Cancelled { command, in_flight, settled }))
}

fn place(row: &SqliteRow) -> Result<(i64, i64, InvocationState), StoreError> {
    let command = row.try_get("command").map_err(StoreError::Statement)?;
    let ordinal = row.try_get("ordinal").map_err(StoreError::Statement)?;
    Ok((command, ordinal, row.parsed("state")?))
}
