//! What only several writers, and a server that goes away, can show.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::store::model::{CommandState, InvocationState};
use crate::store::tests::{Place, accept, command, settlement};
use crate::store::url::{DatabaseUrl, StoreUrl};
use crate::store::write::{Acceptance, Verdict};
use crate::store::{Store, StoreError};
use crate::testing::postgres::Server;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn instances_that_start_together_make_one_schema() {
    let place = Place::postgres();
    let stores = tokio::join!(place.open(), place.open(), place.open(), place.open());
    for store in [stores.0, stores.1, stores.2, stores.3] {
        accept(&store, command(1, 0, None)).await;
        store.close().await;
    }
}

#[tokio::test]
async fn ends_that_two_instances_write_are_in_one_order() {
    const TARGETS: usize = 400;
    let place = Place::postgres();
    let (one, two) = (place.open().await, place.open().await);
    let new = command(TARGETS, TARGETS, None);
    let targets = new.targets.clone();
    let id = accept(&one, new).await.id;
    // Both are told of all, as when gateways move between them.
    let settle = |store: Store, backwards: bool| {
        let mut targets = targets.clone();
        if backwards {
            targets.reverse();
        }
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for group in targets.chunks(7) {
                let group = group.iter().map(|t| settlement(t, &t.agent)).collect();
                for verdict in store.settle(group).await.expect("settled").verdicts {
                    match verdict {
                        Verdict::Settled { seq, .. } => seqs.push(seq),
                        Verdict::Duplicate { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            seqs
        })
    };
    let follower = {
        let (store, id) = (place.open().await, id.clone());
        tokio::spawn(async move {
            let (mut seen, until) = (Vec::new(), Instant::now() + SOON);
            while seen.len() < TARGETS && Instant::now() < until {
                let last = seen.last().copied().unwrap_or(0);
                let more = store.settled_after(&id, last, 50).await.expect("read");
                seen.extend(more.iter().filter_map(|invocation| invocation.seq));
            }
            store.close().await;
            seen
        })
    };
    let (a, b) = tokio::join!(settle(one.clone(), false), settle(two.clone(), true));
    let (a, b) = (a.expect("no panic"), b.expect("no panic"));
    assert!(!a.is_empty() && !b.is_empty(), "both had their part");
    let all: BTreeSet<u64> = a.iter().chain(&b).copied().collect();
    assert_eq!((all.len(), a.len() + b.len()), (TARGETS, TARGETS), "each end has a number of its own");
    let seen = follower.await.expect("no panic");
    assert_eq!(seen, (1..=TARGETS as u64).collect::<Vec<_>>(), "who follows misses none");
    let ended = one.command(&id).await.expect("read").expect("there");
    assert_eq!((ended.state, ended.counts.succeeded, ended.last_seq), (CommandState::Finished, 400, 400));
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn one_key_at_two_instances_is_one_command() {
    let place = Place::postgres();
    let (one, two) = (place.open().await, place.open().await);
    for n in 0..20 {
        let key = format!("k{n}");
        let (a, b) = tokio::join!(one.accept(command(2, 1, Some(&key))), two.accept(command(2, 1, Some(&key))));
        let (a, b) = (a.expect("accepted"), b.expect("accepted"));
        match (&a, &b) {
            (Acceptance::Stored(stored), Acceptance::Replayed(found))
            | (Acceptance::Replayed(found), Acceptance::Stored(stored)) => assert_eq!(stored.id, found.id),
            other => panic!("{other:?}"),
        }
    }
    one.close().await;
    two.close().await;
}

/// Connections end at any moment, also between a commit and its answer.
#[tokio::test]
async fn a_lost_connection_loses_and_repeats_nothing() {
    let server = Server::start_with(false).expect("PostgreSQL");
    let url = server.database().expect("a database");
    let options = DatabaseUrl::new(&url).options().expect("a URL");
    let store = Store::open(&StoreUrl::Postgres(Box::new(options.clone()))).await.expect("a store");
    let pool = sqlx::PgPool::connect_with(options).await.expect("a pool");
    let stop = tokio_util::sync::CancellationToken::new();
    let ended = Arc::new(AtomicI64::new(0));
    let ender = {
        let (stop, ended) = (stop.clone(), ended.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE application_name LIKE 'viworks-writer-%'";
                let now = sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.expect("ended");
                ended.fetch_add(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        })
    };
    let (mut accepted, began) = (Vec::new(), Instant::now());
    // However quick they are, some of them meet the end of a connection.
    while accepted.len() < 60 || ended.load(Ordering::Relaxed) < 4 {
        assert!(began.elapsed() < SOON, "{} in {SOON:?}", accepted.len());
        let new = command(3, 3, None);
        let targets = new.targets.clone();
        // Never `Taken`: what was committed without an answer is not done again.
        let id = accept(&store, new).await.id;
        let ends = vec![settlement(&targets[0], &targets[0].agent)];
        let settled = store.settle(ends).await.expect("settled");
        assert!(matches!(settled.verdicts[..], [Verdict::Settled { seq: 1, .. }]), "{:?}", settled.verdicts);
        accepted.push(id);
    }
    stop.cancel();
    ender.await.expect("no panic");
    for id in &accepted {
        let there = store.command(id).await.expect("read").expect("what was accepted is there");
        assert_eq!((there.counts.succeeded, there.counts.sent), (1, 2));
    }
    assert_eq!(store.count_open_commands().await.expect("read"), accepted.len() as u64);
    store.close().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_waited_for() {
    let server = Server::start().expect("PostgreSQL");
    let url = server.database().expect("a database");
    let options = DatabaseUrl::new(&url).options().expect("a URL");
    let store = Store::open(&StoreUrl::Postgres(Box::new(options))).await.expect("a store");
    let before = accept(&store, command(2, 1, None)).await.id;
    server.crash().expect("crashed");
    // The first waits for a while, since most servers are back soon; later ones do not.
    let refused = store.accept(command(1, 0, None)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let began = Instant::now();
    let refused = store.accept(command(1, 0, None)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(store.command(&before).await.is_err());
    // Notes wait.
    store.audit(crate::store::tests::audit("noted.while.away")).await;
    server.start_again().expect("started");
    // Nothing of ours is started again.
    accept(&store, command(1, 0, None)).await;
    let there = store.command(&before).await.expect("read").expect("there");
    assert_eq!(there.counts.sent, 1);
    store.flush().await.expect("written");
    let page = store.audit_page(&crate::store::model::PageOf::first(10)).await.expect("read");
    assert!(page.items.iter().any(|row| row.entry.action == "noted.while.away"));
    let open = store.invocations(&before, Some(InvocationState::Sent), &crate::store::model::PageOf::first(5)).await;
    assert_eq!(open.expect("read").items.len(), 1);
    store.close().await;
}
