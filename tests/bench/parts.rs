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

/// One row, one transaction, `synchronous=FULL`, on the file system of `dir`.
pub fn durable_commit(dir: &Path, rounds: usize) -> Result<Series> {
    let db = rusqlite::Connection::open(dir.join("commit.db")).map_err(Error::other)?;
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)",
    )
    .map_err(Error::other)?;
    let mut insert = db.prepare("INSERT INTO t (v) VALUES (?1)").map_err(Error::other)?;
    let value = "x".repeat(300);
    let times = repeat(rounds, || insert.execute([&value]).map(drop).map_err(Error::other))?;
    Ok(Series::micros(&times))
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
