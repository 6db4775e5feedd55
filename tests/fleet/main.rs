//! `viworks-fleet`: N simulated gateways in one process, for load and failure tests.
//! Prints a line of counts a second on standard output, and stops by itself.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::sync::Semaphore;
use viworks_tests::fleet::{Answers, Behaviour, connector, run_agent};
use viworks_tests::pki::Identity;

/// Simulate gateways against a backend on this machine.
///
/// Example: viworks-fleet --backend 127.0.0.1:8081 --dir /tmp/fleet --agents 1000
#[derive(Debug, Parser)]
struct Args {
    /// The backend's agents' address; loopback only.
    #[arg(long)]
    backend: SocketAddr,
    /// Holds `ca.pem` and, per agent, `ID.pem` and `ID.key.pem` (`viworks-fleet` never makes keys).
    #[arg(long)]
    dir: PathBuf,
    /// How many; their ids are `PREFIX-FIRST` and on.
    #[arg(long)]
    agents: u32,
    #[arg(long, default_value_t = 0)]
    first: u32,
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// prompt, silent, dead, slow=MILLIS or reconnect=MILLIS
    #[arg(long, default_value = "prompt", value_parser = behaviour)]
    behave: Behaviour,
    /// The result that every verb gets, as JSON.
    #[arg(long, default_value = "{}")]
    result: String,
    /// Come back when a session ends or none comes about, as gateways do.
    #[arg(long)]
    stay: bool,
    /// Fetch offered plugins, and say what is active.
    #[arg(long)]
    fetch: bool,
    /// Let so many of a hundred invocations of a release fail: DIGEST=PERCENT, where the
    /// digest's beginning suffices. Implies --fetch.
    #[arg(long, value_parser = failing)]
    fail: Vec<(String, u32)>,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 64)]
    handshakes: usize,
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

fn behaviour(text: &str) -> Result<Behaviour, String> {
    let millis = |rest: &str| {
        rest.parse().map(Duration::from_millis).map_err(|_| format!("{rest:?} is not a number of milliseconds"))
    };
    match text.split_once('=') {
        None if text == "prompt" => Ok(Behaviour::Prompt),
        None if text == "silent" => Ok(Behaviour::Silent),
        None if text == "dead" => Ok(Behaviour::Dead),
        Some(("slow", rest)) => millis(rest).map(Behaviour::Slow),
        Some(("reconnect", rest)) => millis(rest).map(Behaviour::Reconnecting),
        _ => Err("one of prompt, silent, dead, slow=MILLIS, reconnect=MILLIS".into()),
    }
}

fn failing(text: &str) -> Result<(String, u32), String> {
    let (digest, rate) = text.split_once('=').ok_or("is not DIGEST=PERCENT")?;
    rate.parse().map(|rate| (digest.to_owned(), rate)).map_err(|_| format!("{rate:?} is not a percentage"))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    if !args.backend.ip().is_loopback() {
        return Err(std::io::Error::other("--backend must be a loopback address"));
    }
    let answers = Answers::new(&args.result)?;
    let answers = if args.stay { answers.that_stay() } else { answers };
    let answers = Arc::new(if args.fetch || !args.fail.is_empty() { answers.with_plugins(args.fail) } else { answers });
    let ca = std::fs::read_to_string(args.dir.join("ca.pem"))?;
    let gate = Arc::new(Semaphore::new(args.handshakes));
    for n in args.first..args.first + args.agents {
        let id = format!("{}-{n}", args.prefix);
        let identity = Identity {
            cert_pem: std::fs::read_to_string(args.dir.join(format!("{id}.pem")))?,
            key_pem: std::fs::read_to_string(args.dir.join(format!("{id}.key.pem")))?,
            serial: Vec::new(),
            pin: String::new(),
        };
        let tls = connector(&identity, &ca)?;
        let id = id.parse().map_err(std::io::Error::other)?;
        // Ten source addresses, so that the port range is no limit.
        let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2 + (n % 10) as u8), 0));
        tokio::spawn(run_agent(
            id,
            args.backend,
            Some(source),
            tls,
            args.behave,
            Arc::clone(&answers),
            Arc::clone(&gate),
        ));
    }
    for _ in 0..args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{}", answers.counts.json()).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}
