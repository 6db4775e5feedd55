//! With a Redis of the test's own: events on their way, rates over two instances, and
//! both while it is gone and when it is back.

use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

use crate::background::Background;
use crate::clock::Clock;
use crate::cluster::rate::Limit;
use crate::cluster::{Cluster, Event, Heard, Parts, RedisUrl};
use crate::hub::Hub;
use crate::metrics::{Kind, Metrics, Word};
use crate::store::Store;
use crate::testing::redis::Server;
use crate::testing::{SOON, soon};

struct Group {
    server: Server,
    store: Store,
    a: (Cluster, Metrics),
    b: (Cluster, Metrics),
    background: Background,
    _dir: Arc<TempDir>,
}

impl Group {
    async fn new() -> Self {
        let (server, dir) = (Server::start().expect("Redis"), tempfile::tempdir().expect("a directory"));
        let store = Store::open(&dir.path().join("viworks.db").into()).await.expect("a store");
        let background = Background::new(Metrics::default());
        let start = async |name: &str| {
            let metrics = Metrics::default();
            let parts = Parts {
                store: store.clone(),
                hub: Hub::of(name.to_owned(), Clock::default()),
                background: background.clone(),
                metrics: metrics.clone(),
                shared: true,
                redis: RedisUrl::new(server.url()).client().ok(),
                warrant_key: "k".to_owned(),
            };
            (Cluster::start(parts).await.expect("an instance"), metrics)
        };
        let (a, b) = (start("a").await, start("b").await);
        let group = Self { server, store, a, b, background, _dir: Arc::new(dir) };
        group.up(true).await;
        group
    }

    /// Both see Redis, or see that it is gone.
    async fn up(&self, wanted: bool) {
        soon(async {
            while [&self.a, &self.b].iter().any(|(of, _)| of.redis_is_up() != Some(wanted)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn end(self) {
        assert!(self.background.stop(SOON).await);
        self.store.close().await;
    }
}

fn messages(metrics: &Metrics, kind: &'static str) -> u64 {
    metrics.bus_messages.get_or_create(&Kind { kind: Word(kind) }).get()
}

/// The next events; gaps are passed over.
async fn heard(ears: &mut Receiver<Heard>) -> Vec<Event> {
    soon(async {
        loop {
            if let Heard::Events(events) = ears.recv().await.expect("open") {
                return events.to_vec();
            }
        }
    })
    .await
}

#[tokio::test]
async fn events_reach_the_others_and_a_redis_that_is_gone_keeps_nobody_waiting() {
    let group = Group::new().await;
    let (mut at_a, mut at_b) = (group.a.0.bus().subscribe(), group.b.0.bus().subscribe());
    group.a.0.publish(Event::Tokens {});
    assert_eq!(heard(&mut at_b).await, [Event::Tokens {}]);
    group.b.0.publish(Event::Catalog {});
    assert_eq!(heard(&mut at_a).await, [Event::Catalog {}], "and none of its own");

    let channels = group.server.cli(&["PUBSUB", "CHANNELS", "viworks:*"]).expect("asked");
    let [channel] = channels.split_whitespace().collect::<Vec<_>>()[..] else { panic!("one channel, not {channels}") };
    for lie in ["junk", r#"{"v":9,"from":"x","events":[]}"#] {
        group.server.cli(&["PUBLISH", channel, lie]).expect("published");
    }
    soon(async {
        while messages(&group.b.1, "refused") < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(at_b.is_empty(), "nothing came of it");

    group.server.stop().expect("stopped");
    group.up(false).await;
    group.a.0.publish(Event::Tokens {});
    soon(async {
        while messages(&group.a.1, "lost") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    group.server.start_again().expect("started");
    group.up(true).await;
    let gap = soon(at_b.recv()).await.expect("open");
    assert!(matches!(gap, Heard::Gap), "what was missed is looked for: {gap:?}");
    group.a.0.publish(Event::Repository {});
    assert_eq!(heard(&mut at_b).await, [Event::Repository {}]);
    group.end().await;
}

#[tokio::test]
async fn a_token_has_one_rate_over_all_instances_and_one_at_each_without_redis() {
    let group = Group::new().await;
    // One every ten seconds, three at once: the test is quicker than that.
    let limit = |of: &(Cluster, Metrics)| Limit::of_period(of.0.clone(), Duration::from_secs(10), 3);
    let (a, b) = (limit(&group.a), limit(&group.b));
    for of in [&a, &b, &a] {
        assert_eq!(of.take("alice").await, Ok(()));
    }
    for of in [&a, &b] {
        let wait = of.take("alice").await.expect_err("three were taken");
        assert!(wait > Duration::from_secs(5) && wait <= Duration::from_secs(10), "{wait:?}");
    }
    assert_eq!(b.take("bob").await, Ok(()), "another token");
    assert_eq!((group.a.1.rates_here.get(), group.b.1.rates_here.get()), (0, 0), "all of it in Redis");
    let keys = group.server.cli(&["KEYS", "viworks:*:rate:*"]).expect("asked");
    assert_eq!(keys.lines().count(), 2, "{keys}");
    assert!(!keys.contains("alice"));
    let key = keys.lines().next().unwrap_or_default();
    let left: i64 = group.server.cli(&["PTTL", key]).expect("asked").trim().parse().expect("a number");
    assert!((1..=31_000).contains(&left), "it goes by itself: {left}");

    group.server.stop().expect("stopped");
    group.up(false).await;
    for of in [&a, &b] {
        for _ in 0..3 {
            assert_eq!(of.take("alice").await, Ok(()), "each counts for itself");
        }
        assert!(of.take("alice").await.is_err());
    }
    assert_eq!((group.a.1.rates_here.get(), group.b.1.rates_here.get()), (4, 4));
    group.end().await;
}
