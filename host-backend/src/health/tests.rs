use super::*;
use crate::config::Config;
use crate::testing::{SOON, agent, sample};
use viworks_signing::keys::SecretKey;

async fn state(dir: &std::path::Path) -> AppState {
    let release_keys = dir.join("release.pub.pem");
    let pem = SecretKey::generate().public().to_pem().expect("PEM");
    std::fs::write(&release_keys, pem).expect("written");
    let config = Config { data_dir: dir.join("data"), release_keys, ..Config::default() };
    AppState::build(config).await.expect("built")
}

#[tokio::test]
async fn what_does_not_work_is_degraded_and_the_rest_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path()).await;
    // No port was started, and no processor.
    let health = state.look().await;
    assert_eq!((health.database, health.command_engine), (Status::Healthy, Status::Healthy));
    assert_eq!((health.agent_registry, health.telemetry_processor), (Status::Degraded, Status::Degraded));
    assert_eq!(health.status, Status::Degraded);
    for (name, service) in &health.more {
        assert_eq!(service.status, Status::Healthy, "{name}: {service:?}");
    }

    let of = state.clone();
    state
        .background
        .supervise("telemetry", move || of.telemetry.clone().run(of.store.clone(), of.background.token().clone()));
    assert_eq!(state.look().await.telemetry_processor, Status::Healthy);
    // More at once than the queue holds; nothing runs in between.
    for _ in 0..20_000 {
        state.telemetry.offer(&agent("a"), sample(1, 1.0));
    }
    assert_eq!(state.look().await.telemetry_processor, Status::Degraded, "samples are dropped");

    assert!(state.background.stop(SOON).await);
    assert_eq!(state.look().await.command_engine, Status::Degraded, "the engine has stopped");
    state.store.close().await;
    assert_eq!(state.look().await.database, Status::Degraded);
    assert_eq!(state.ready.reasons().await, ["store"]);
}

#[tokio::test]
async fn a_fallen_task_shows_until_it_runs_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path()).await;
    let fell = Arc::new(tokio::sync::Notify::new());
    let told = fell.clone();
    state.background.supervise("stumbler", move || {
        let told = told.clone();
        async move {
            told.notify_one();
            // A task that panics, so that what starts it again is seen.
            std::panic::resume_unwind(Box::new("falls"));
        }
    });
    tokio::time::timeout(SOON, fell.notified()).await.expect("it fell");
    let seen = async {
        loop {
            let health = state.look().await;
            if health.more["background_tasks"].status == Status::Degraded {
                return health;
            }
            tokio::task::yield_now().await;
        }
    };
    let health = tokio::time::timeout(SOON, seen).await.expect("seen");
    assert_eq!(health.more["background_tasks"].detail.as_deref(), Some("stumbler"));
    assert_eq!(health.database, Status::Healthy, "the rest works");
    assert!(state.background.stop(SOON).await);
}

#[tokio::test]
async fn readiness_says_why_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path()).await;
    assert!(state.ready.reasons().await.is_empty());
    state.ready.drain();
    assert_eq!(state.ready.reasons().await, ["draining"]);
    state.background.stop(SOON).await;
    state.store.close().await;
}

#[tokio::test]
async fn a_full_queue_of_the_store_shows_until_it_is_written() {
    use crate::store::write::Note;
    use sqlx::Connection as _;
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path()).await;
    let file = format!("sqlite://{}", dir.path().join("data/viworks.db").display());
    let mut other = sqlx::SqliteConnection::connect(&file).await.expect("a second connection");
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("locked");
    let of: viworks_protocol::id::InvocationId = format!("inv-{:032x}", 1).parse().expect("an id");
    // What the writer holds already, and then its queue.
    for _ in 0..20 {
        while state.store.try_note(Note::Running { agent: agent("a"), invocation: of.clone(), at_ms: 1 }).is_ok() {}
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(services::look(&state).await["store_queue"].status, Status::Degraded);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("unlocked");
    let written = async {
        while services::look(&state).await["store_queue"].status == Status::Degraded {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, written).await.expect("it is written");
    state.background.stop(SOON).await;
    state.store.close().await;
}
