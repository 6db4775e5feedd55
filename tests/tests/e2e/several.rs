//! Two backends over one PostgreSQL and one Redis, gateways at both: any of them serves
//! any request, and what one loses the other one has.

use std::io::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viworks_tests::api::Api;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::{Gateway, Setup};
use viworks_tests::program::{Running, eventually, program};
use viworks_tests::{postgres, redis};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

/// Two instances, `a` (the cluster's own) and `b`.
struct Pair {
    a: Cluster,
    b: Running,
    b_api: Api,
    a_agents: String,
    b_agents: String,
    database: String,
    redis: redis::Server,
    postgres: postgres::Server,
}

impl Pair {
    fn start() -> std::io::Result<Self> {
        let (postgres, redis) = (postgres::Server::start()?, redis::Server::start()?);
        let url = postgres.database()?;
        let database = url.split('?').next().and_then(|url| url.rsplit('/').next()).unwrap_or_default().to_owned();
        let shared = format!("database_url = {url:?}\nredis_url = {:?}\nheartbeat_secs = 5\n", redis.url());
        let a = Cluster::start_with(&Options { backend: format!("{shared}instance_id = \"a\"\n") })?;
        let config = std::fs::read_to_string(a.path("backend.toml"))?
            .replace(
                "instance_id = \"a\"",
                &format!("instance_id = \"b\"\nwarrant_key = {:?}", a.path("backend/warrant.key.pem")),
            )
            .replace(&format!("data_dir = {:?}", a.path("backend")), &format!("data_dir = {:?}", a.path("backend-b")));
        std::fs::write(a.path("backend-b.toml"), config)?;
        let (b, api, b_agents) = start_b(&a)?;
        let token = a.token("pair", "admin")?;
        let b_api = Api::new(&api, Some(&token));
        let a_agents = a.agents_addr.clone();
        Ok(Self { a, b, b_api, a_agents, b_agents, database, redis, postgres })
    }

    /// A gateway that knows these addresses.
    fn gateway(&mut self, id: &str, addresses: &[&str]) -> std::io::Result<Gateway> {
        let own = std::mem::replace(&mut self.a.agents_addr, addresses.join(",wss://"));
        let started = Setup::new(&self.a, id).and_then(|setup| setup.start(&self.a));
        self.a.agents_addr = own;
        started
    }

    fn sql(&self, statement: &str) -> std::io::Result<String> {
        self.postgres.sql(&self.database, statement)
    }
}

fn start_b(a: &Cluster) -> std::io::Result<(Running, String, String)> {
    let listening = a.path("backend-b/listening.json");
    let _ = std::fs::remove_file(&listening);
    let config = a.path("backend-b.toml");
    let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut b = Running::start(&program("viworks-backend")?, args, &a.path("backend-b.log"))?;
    let addresses: Value = eventually("b listens", SOON, || {
        if let Some(status) = b.ended()? {
            return Err(Error::other(format!("b ended with {status}:\n{}", b.log_tail())));
        }
        Ok(serde_json::from_str(&std::fs::read_to_string(&listening)?).ok())
    })?;
    let address = |key: &str| addresses[key].as_str().unwrap_or_default().to_owned();
    Ok((b, format!("http://{}", address("api")), address("agents")))
}

fn counted(api: &Api, verb: &str, args: &Value, agents: &[&str]) -> std::io::Result<Value> {
    let body = json!({"verb": verb, "args": args, "agent_targets": agents, "wait_secs": 40, "timeout_secs": 40});
    Ok(api.post("/commands", &body)?.expect_status(200)?["counts"].clone())
}

fn id_of(body: &Value) -> String {
    body["id"].as_str().unwrap_or_default().to_owned()
}

fn running(api: &Api, id: &str) -> std::io::Result<()> {
    eventually("running", SOON, || {
        let body = api.get(&format!("/commands/{id}"))?.expect_status(200)?;
        if body["counts"]["running"] == 1 { Ok(Some(())) } else { Err(Error::other(body.to_string())) }
    })
}

#[test]
fn any_instance_serves_any_request() -> Result {
    let mut pair = Pair::start()?;
    let (at_a, at_b) = (pair.a_agents.clone(), pair.b_agents.clone());
    let _one = pair.gateway("web-a", &[&at_a])?;
    let _two = pair.gateway("web-b", &[&at_b])?;
    // Published on one, there at both.
    pair.a.publish("accounts")?;
    pair.a.publish_guest("nap")?;
    for agent in ["web-a", "web-b"] {
        pair.a.ready(agent, 2)?;
    }
    let owners = pair.sql("SELECT agent || ' ' || instance FROM agent_sessions ORDER BY agent")?;
    assert_eq!(owners.trim(), "web-a a\nweb-b b");

    // Commands and those who wait for them are at any instance.
    for api in [&pair.a.api, &pair.b_api] {
        let counts = counted(api, "nap", &json!({"ms": 1}), &["web-a", "web-b"])?;
        assert_eq!(counts["succeeded"], 2, "{counts}");
    }
    let began = Instant::now();
    let counts = counted(&pair.a.api, "nap", &json!({"ms": 1}), &["web-b"])?;
    assert_eq!(counts["succeeded"], 1, "{counts}");
    println!("a command through a to an agent of b took {:?}", began.elapsed());

    // The events of one that another instance's agent runs.
    let nap = json!({"verb": "nap", "args": {"ms": 1_000}, "agent_targets": ["web-b"]});
    let id = id_of(&pair.a.api.post("/commands", &nap)?.expect_status(202)?);
    let events = pair.a.api.get(&format!("/commands/{id}/events"))?.expect_status(200)?;
    let text = events.as_str().unwrap_or_default();
    assert!(text.contains("event: invocation") && text.contains("event: finished"), "{text}");

    // A cancel reaches the instance that has the agent.
    let nap = json!({"verb": "nap", "args": {"ms": 50_000}, "agent_targets": ["web-b"], "timeout_secs": 60});
    let id = id_of(&pair.a.api.post("/commands", &nap)?.expect_status(202)?);
    running(&pair.a.api, &id)?;
    let began = Instant::now();
    pair.a.api.post(&format!("/commands/{id}/cancel"), &json!({}))?.expect_status(202)?;
    let done = pair.a.finished(&id, SOON)?;
    assert_eq!(done["counts"]["cancelled"], 1, "{done}");
    println!("a cancel through a of work at b took {:?}", began.elapsed());

    // A token that is revoked at one is refused at the other.
    let token = pair.a.token("short", "viewer")?;
    let short = pair.b_api.with_token(Some(&token));
    short.get("/agents")?.expect_status(200)?;
    pair.a.api.delete("/tokens/short")?.expect_status(204)?;
    let began = Instant::now();
    eventually("the token is refused", Duration::from_secs(1), || {
        Ok((short.get("/agents")?.status == 401).then_some(()))
    })?;
    println!("a token revoked at a was refused at b after {:?}", began.elapsed());

    // Background work is one instance's each.
    let names = pair.sql("SELECT count(*) - count(DISTINCT name) FROM leases")?;
    assert_eq!(names.trim(), "0");
    let work =
        pair.sql("SELECT count(*) FROM leases WHERE name IN ('expiry', 'receipts', 'retention', 'stale-agents')")?;
    assert_eq!(work.trim(), "4");
    Ok(())
}

#[test]
fn an_instance_killed_in_mid_command_loses_nothing() -> Result {
    let mut pair = Pair::start()?;
    let (at_a, at_b) = (pair.a_agents.clone(), pair.b_agents.clone());
    let _one = pair.gateway("web-a", &[&at_a])?;
    pair.a.publish("accounts")?;
    pair.a.publish_guest("nap")?;
    pair.a.ready("web-a", 2)?;
    // It knows both, and is started until it is at b.
    let mut two = pair.gateway("web-b", &[&at_b, &at_a])?;
    eventually("web-b is at b", SOON, || {
        pair.a.ready("web-b", 2)?;
        let owner = pair.sql("SELECT instance FROM agent_sessions WHERE agent = 'web-b'")?;
        if owner.trim() == "b" {
            return Ok(Some(()));
        }
        two.process.terminate(SOON)?;
        two.restart()?;
        Err(Error::other(owner))
    })?;

    // One runs at b's agent, and ten that change the host are on their way through both.
    let nap = json!({"verb": "nap", "args": {"ms": 3_000}, "agent_targets": ["web-b"], "timeout_secs": 60});
    let napping = id_of(&pair.b_api.post("/commands", &nap)?.expect_status(202)?);
    running(&pair.a.api, &napping)?;
    let mut changes = Vec::new();
    for n in 0..10 {
        let add = json!({"verb": "add_user", "args": {"name": format!("user{n}")}, "agent_targets": ["web-b"]});
        let api = if n % 2 == 0 { &pair.a.api } else { &pair.b_api };
        changes.push(id_of(&api.post("/commands", &add)?.expect_status(202)?));
    }
    pair.b.kill()?;
    let killed = Instant::now();
    let next = json!({"verb": "nap", "args": {"ms": 1}, "agent_targets": ["web-b"], "wait_secs": 40});
    let next = pair.a.api.post("/commands", &next)?.expect_status(200)?;
    let failover = killed.elapsed();
    assert_eq!(next["counts"]["succeeded"], 1, "{next}");
    println!("from the kill of b to the next result through a: {failover:?}");
    assert!(failover < Duration::from_secs(10), "{failover:?}; on a machine that is idle it is less than five");

    let done = pair.a.finished(&napping, SOON)?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    for id in &changes {
        // Run twice, it would be a conflict.
        let done = pair.a.finished(id, SOON)?;
        assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    }
    let users = pair.a.run("web-b", "list_users", &json!({}))?;
    assert_eq!(users["result"].as_array().map(Vec::len), Some(10), "{users}");
    // What b did is a's now.
    eventually("a does all the work", SOON, || {
        let others = pair.sql("SELECT count(*) FROM leases WHERE holder = 'b' AND name NOT LIKE 'instance:%'")?;
        if others.trim() == "0" { Ok(Some(())) } else { Err(Error::other(others)) }
    })?;

    // It comes back under its name and serves again.
    let (b, api, _) = start_b(&pair.a)?;
    pair.b = b;
    let token = pair.a.token("again", "operator")?;
    let counts = counted(&Api::new(&api, Some(&token)), "nap", &json!({"ms": 1}), &["web-a", "web-b"])?;
    assert_eq!(counts["succeeded"], 2, "{counts}");
    Ok(())
}

#[test]
fn without_redis_it_is_slower_and_nothing_else() -> Result {
    let mut pair = Pair::start()?;
    let (at_a, at_b) = (pair.a_agents.clone(), pair.b_agents.clone());
    let _one = pair.gateway("web-a", &[&at_a])?;
    let _two = pair.gateway("web-b", &[&at_b])?;
    pair.a.publish_guest("nap")?;
    for agent in ["web-a", "web-b"] {
        pair.a.ready(agent, 1)?;
    }
    let health = |wanted: &'static str| {
        let api = pair.a.api.clone();
        eventually("redis' health", SOON, move || {
            let body = api.get("/health")?.body;
            if body["services"]["redis"]["status"] == wanted {
                Ok(Some(()))
            } else {
                Err(Error::other(body.to_string()))
            }
        })
    };
    health("healthy")?;
    pair.redis.stop()?;
    health("degraded")?;
    let began = Instant::now();
    for n in 0..5 {
        let (api, agent) = if n % 2 == 0 { (&pair.a.api, "web-b") } else { (&pair.b_api, "web-a") };
        let counts = counted(api, "nap", &json!({"ms": 1}), &[agent])?;
        assert_eq!(counts["succeeded"], 1, "{counts}");
    }
    println!("without Redis, a command to another instance's agent took {:?}", began.elapsed() / 5);
    let nap = json!({"verb": "nap", "args": {"ms": 50_000}, "agent_targets": ["web-b"], "timeout_secs": 60});
    let id = id_of(&pair.a.api.post("/commands", &nap)?.expect_status(202)?);
    running(&pair.a.api, &id)?;
    pair.a.api.post(&format!("/commands/{id}/cancel"), &json!({}))?.expect_status(202)?;
    let done = pair.a.finished(&id, SOON)?;
    assert_eq!(done["counts"]["cancelled"], 1, "{done}");

    pair.redis.start_again()?;
    health("healthy")?;
    // Nobody was started again, and it is quick as before.
    let counts = counted(&pair.a.api, "nap", &json!({"ms": 1}), &["web-a", "web-b"])?;
    assert_eq!(counts["succeeded"], 2, "{counts}");
    // Whoever can write to Redis orders nothing.
    for lie in ["junk", r#"{"v":1,"from":"x","events":[{"work":{"command":"x","agents":[]}},{"tokens":{}}]}"#] {
        let channel = pair.redis.cli(&["PUBSUB", "CHANNELS", "viworks:*:bus"])?;
        pair.redis.cli(&["PUBLISH", channel.trim(), lie])?;
    }
    let counts = counted(&pair.b_api, "nap", &json!({"ms": 1}), &["web-a", "web-b"])?;
    assert_eq!(counts["succeeded"], 2, "{counts}");
    Ok(())
}
