//! The parts that a command's journey is made of, each alone: an HTTP echo, a durable
//! commit, a mutual-TLS WebSocket echo.

use std::io::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use viworks_tests::api::Api;
use viworks_tests::pki::Ca;

use crate::bare::Bare;
use crate::report::Series;

/// `POST` with a small JSON body, answered as it came, through the same client.
pub fn http_echo(runtime: &tokio::runtime::Runtime, rounds: usize) -> Result<Series> {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let addr = listener.local_addr()?;
    let app = axum::Router::new()
        .route("/echo", axum::routing::post(|body: axum::Json<serde_json::Value>| async move { body }));
    let server = runtime.spawn(async move { axum::serve(listener, app).await });
    let api = Api::new(&format!("http://{addr}"), None);
    let body = json!({"verb": "ping", "args": {"text": "x".repeat(150)}, "agent_targets": ["bench-1"]});
    let times = repeat(rounds, || api.post("/echo", &body).map(drop))?;
    server.abort();
    Ok(Series::micros(&times))
}

/// The two commits of a command's journey, each alone.
pub struct Commits {
    /// A command, its invocation and its audit entry.
    pub accept: Series,
    /// The invocation's result, and the command's counts.
    pub settle: Series,
    /// One row in one table, for comparison.
    pub one_row: Series,
}

/// The rows that a command's journey writes, into the backend's own schema, through plain
/// SQLite with `synchronous=FULL`, on the file system of `dir`.
pub fn durable_commits(dir: &Path, rounds: usize) -> Result<Commits> {
    const SCHEMA: &str = include_str!("../../host-backend/src/store/sqlite/migrations/0001_first.sql");
    let db = rusqlite::Connection::open(dir.join("commit.db")).map_err(Error::other)?;
    let run = |sql: &str| db.execute_batch(sql).map_err(Error::other);
    run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
    run(SCHEMA)?;
    run("CREATE TABLE one (k INTEGER PRIMARY KEY, v TEXT)")?;
    let filler = "x".repeat(300);
    let mut n = 0u64;
    let one_row = repeat(rounds, || run(&format!("INSERT INTO one (v) VALUES ('{filler}')")))?;
    let accept = repeat(rounds, || {
        n += 1;
        run(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO commands (id, verb, plugin, digest, mode, args, caller, state, created_ms, expires_ms, due_ms,
                 timeout_secs, targets, targets_root, sent)
             VALUES ('cmd-{n:032x}', 'ping', 'echo', '{n:064x}', 'apply', '{filler}', 'admin', 'running', {n}, {n}, {n},
                 45, 1, '{n:064x}', 1);
             INSERT INTO invocations (command, ordinal, id, agent, state, sent_ms)
             VALUES (last_insert_rowid(), 0, 'inv-{:032x}', 'bench-1', 'sent', {n});
             INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
             VALUES ({n}, 'admin', 'command.accept', 'cmd-{n:032x}', 'allowed', 'apply ping on 1 agents');
             COMMIT",
            // Ids of invocations are hashes: they land anywhere in their index.
            u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        ))
    })?;
    n = 0;
    let settle = repeat(rounds, || {
        n += 1;
        run(&format!(
            "BEGIN IMMEDIATE;
             UPDATE invocations SET state = 'succeeded', seq = 1, report = '{filler}', started_ms = 1, finished_ms = 2
             WHERE command = {n} AND ordinal = 0;
             UPDATE commands SET state = 'finished', finished_ms = 2, last_seq = 1, sent = 0, succeeded = 1
             WHERE n = {n};
             COMMIT"
        ))
    })?;
    Ok(Commits { accept: Series::micros(&accept), settle: Series::micros(&settle), one_row: Series::micros(&one_row) })
}

/// One text there and one back over mutual TLS, the peer a simulated agent.
pub fn websocket_echo(runtime: &tokio::runtime::Runtime, ca: &Ca, order: &str, rounds: usize) -> Result<Series> {
    use viworks_tests::fleet::{Answers, Behaviour, connector, run_agent};
    runtime.block_on(async {
        let bare = Bare::start(ca, &ca.server().map_err(Error::other)?).await?;
        let identity = ca.agent("echo").map_err(Error::other)?;
        let tls = connector(&identity, &ca.cert_pem())?;
        let answers = std::sync::Arc::new(Answers::new("{}")?);
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let id = "echo".parse().map_err(Error::other)?;
        let agent = tokio::spawn(run_agent(id, bare.addr, None, tls, Behaviour::Prompt, answers, gate));
        while bare.connected() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            times.push(bare.round(order, Duration::from_secs(5)).await?);
        }
        agent.abort();
        Ok(Series::micros(&times))
    })
}

/// Time `work` so many times, after a tenth more to warm up.
pub fn repeat(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    for _ in 0..rounds.div_ceil(10) {
        work()?;
    }
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work().map(|()| start.elapsed())
        })
        .collect()
}
