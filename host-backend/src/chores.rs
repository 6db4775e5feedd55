//! What the backend does by itself every so often: flag agents that are gone for long,
//! drop what is past its time, and post the scheduled command. All of it through the same
//! doors as everybody: the store's operations and the engine.

use serde_json::Value;
use std::time::Duration;
use viworks_protocol::warrant::Mode;

use crate::app::AppState;
use crate::background::every;
use crate::config::Schedule;
use crate::dispatch::Request;
use crate::store::StoreError;
use crate::store::model::{IdempotencyKey, Selector};
use crate::store::write::Horizon;

const RETENTION_EVERY: Duration = Duration::from_secs(600);
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The verb that the schedule runs.
const CLEANUP: &str = "cleanup_containers";

/// Flag agents unseen for `stale_after_secs`. They stay listed, offline and stale, and a
/// session makes them fresh again.
pub async fn stale_agents(state: AppState) {
    let check = Duration::from_secs(state.config.stale_check_secs);
    let stop = state.background.token().clone();
    every(check, &stop, || async {
        if !state.cluster.leads("stale-agents").await {
            return;
        }
        let now = state.clock.now_ms();
        match state.store.mark_stale(now.saturating_sub(state.config.stale_after_secs * 1_000), now).await {
            Ok(agents) if agents.is_empty() => {}
            Ok(agents) => tracing::info!(count = agents.len(), "agents are stale"),
            Err(error) => tracing::error!(%error, "stale agents can't be flagged"),
        }
    })
    .await;
}

/// Delete what is past its retention, a bounded part at a time.
pub async fn retention(state: AppState) {
    let stop = state.background.token().clone();
    every(RETENTION_EVERY, &stop, || async {
        if !state.cluster.leads("retention").await {
            return;
        }
        match prune(&state).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old rows are gone"),
            Err(error) => tracing::error!(%error, "old rows can't be deleted"),
        }
    })
    .await;
}

async fn prune(state: &AppState) -> Result<u64, StoreError> {
    let (now, config) = (state.clock.now_ms(), &state.config);
    let horizon = Horizon {
        telemetry_ms: now.saturating_sub(config.telemetry_retention_hours * HOUR_MS),
        hours_ms: now.saturating_sub(config.telemetry_hourly_retention_days * DAY_MS),
        commands_ms: now.saturating_sub(config.command_retention_days * DAY_MS),
        receipts_ms: now.saturating_sub(config.receipt_retention_days * DAY_MS),
        audit_ms: now.saturating_sub(config.audit_retention_days * DAY_MS),
    };
    let mut total = 0;
    while !state.background.token().is_cancelled() {
        let gone = state.store.prune(horizon).await?;
        total += gone;
        if gone == 0 {
            break;
        }
        // Others write between two parts.
        tokio::task::yield_now().await;
    }
    Ok(total)
}

/// Post the scheduled command at every multiple of its interval since 1970. Every instance
/// does; it is one command, by its idempotency key.
pub async fn scheduled_cleanup(state: AppState, schedule: Schedule) {
    let stop = state.background.token().clone();
    let interval_ms = schedule.every_secs * 1_000;
    loop {
        let now = state.clock.now_ms();
        let next = (now / interval_ms + 1) * interval_ms;
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(next - now))).await.is_none() {
            return;
        }
        if let Err(reason) = post(&state, &schedule, next / 1_000).await {
            tracing::warn!(verb = CLEANUP, reason, "the scheduled command was not posted");
        }
    }
}

async fn post(state: &AppState, schedule: &Schedule, slot_secs: u64) -> Result<(), String> {
    let key = IdempotencyKey { key: format!("{CLEANUP}-{slot_secs}"), request_sha256: String::new() };
    let args = Value::Object(schedule.args.clone());
    let checked = state.catalog.check(CLEANUP, &args).map_err(|e| format!("{e:?}"))?;
    let selector = Selector { labels: schedule.labels.clone(), site: schedule.site.clone(), all: schedule.all };
    let targets = state.store.select_agents(&selector, state.config.max_targets).await.map_err(|e| e.to_string())?;
    let request = Request {
        task: checked.into(),
        mode: Mode::Apply,
        plans: Vec::new(),
        approvals: 0,
        targets,
        caller: "backend:schedule".to_owned(),
        timeout_secs: None,
        // Who is away until the next run need not catch up.
        expires_in_secs: Some(schedule.every_secs.min(crate::dispatch::MAX_EXPIRY_SECS)),
        batch: None,
        idempotency_key: Some(key),
        trace: None,
    };
    let accepted = state.engine.accept(request).await.map_err(|e| e.to_string())?;
    if accepted.replayed {
        return Ok(());
    }
    tracing::info!(verb = CLEANUP, command = %accepted.command.id, targets = accepted.command.targets, "scheduled");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::model::{CommandFilter, PageOf};
    use crate::store::write::Note;
    use crate::testing::{component, hello, release};
    use viworks_signing::keys::SecretKey;

    #[tokio::test]
    async fn the_schedule_posts_an_ordinary_command() {
        let (dir, key) = (tempfile::tempdir().expect("a directory"), SecretKey::generate());
        let release_keys = dir.path().join("release.pub.pem");
        std::fs::write(&release_keys, key.public().to_pem().expect("PEM")).expect("written");
        let config = Config { data_dir: dir.path().join("data"), release_keys, ..Config::default() };
        let state = AppState::build(config).await.expect("built");
        state.store.note(Note::Hello(Box::new(hello("web-01", 1)))).await.expect("noted");
        state.store.flush().await.expect("written");
        let mut schedule: Schedule =
            serde_json::from_value(serde_json::json!({ "args": { "name": "old" }, "labels": { "tier": "web" } }))
                .expect("a schedule");
        assert!(post(&state, &schedule, 1).await.is_err(), "no plugin has the verb yet");
        let bytes = component("containers");
        let signed = release(&key, "containers", 1, CLEANUP, &bytes);
        state.catalog.publish(bytes.into(), signed, crate::catalog::Wanted::Active, "tests").await.expect("published");
        assert_eq!(post(&state, &schedule, 3_600).await, Ok(()));
        assert_eq!(post(&state, &schedule, 3_600).await, Ok(()), "another instance does the same");
        let page = state.store.commands(&CommandFilter::default(), &PageOf::first(10)).await.expect("read");
        let [command] = &page.items[..] else { panic!("one command") };
        assert_eq!((command.caller.as_str(), command.verb.as_str()), ("backend:schedule", CLEANUP));
        assert_eq!(command.expires_ms - command.created_ms, HOUR_MS, "gone by the next run");
        schedule.labels.clear();
        assert!(post(&state, &schedule, 7_200).await.is_err(), "nothing selected is nobody");
        assert!(state.stop().await);
    }

    #[tokio::test]
    async fn retention_goes_on_until_nothing_is_left() {
        let (dir, key) = (tempfile::tempdir().expect("a directory"), SecretKey::generate());
        let release_keys = dir.path().join("release.pub.pem");
        std::fs::write(&release_keys, key.public().to_pem().expect("PEM")).expect("written");
        let config = Config { data_dir: dir.path().join("data"), release_keys, ..Config::default() };
        let state = AppState::build(config).await.expect("built");
        for n in 0..6_000 {
            let sample = Box::new(crate::testing::sample(n, 1.0));
            let note = Note::Sample { agent: crate::testing::agent("a"), at_ms: n, sample };
            state.store.note(note).await.expect("noted");
        }
        state.store.flush().await.expect("written");
        // All of them and their one hour.
        assert_eq!(prune(&state).await.expect("pruned"), 6_001);
        assert!(state.stop().await);
    }
}
