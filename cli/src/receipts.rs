//! `viworks receipts`: what gateways signed of what they did: list it, take all of it away
//! in a file, and check such a file without the backend.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use viworks_protocol::id::AgentId;
use viworks_protocol::receipt::export::{Summary, Trust, verify_export};
use viworks_signing::keys::PublicKey;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::listing::Cell::{By, Field, Moment};
use crate::listing::{self, Column};
use crate::output::{Out, Table, cell};

/// Items that are asked for at once.
const PAGE: usize = 1_000;
/// Faults that are printed; `--json` has more.
const SHOWN: usize = 50;

/// Signed records of invocations: list, export, verify.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  viworks receipts --agent web-1
  viworks receipts export receipts.jsonl
  viworks receipts verify receipts.jsonl --warrant-keys warrant.pub.pem
  viworks receipts verify web-1.jsonl --agent web-1 --agent-key web-1=receipt.pub.pem"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List receipts.
    List(Filter),
    /// Write receipts, keys and anchors to a file: JSON lines.
    Export {
        /// The file; it must not be there yet.
        file: PathBuf,
        /// Of this agent alone.
        #[arg(long)]
        agent: Option<String>,
    },
    /// Check an export without the backend. Says what was tampered with, reordered, taken out,
    /// cut off or forked; the exit code is 1 then.
    Verify {
        /// An export.
        file: PathBuf,
        /// Public keys of the backend that signed the anchors: its warrant.pub.pem, SPKI PEM.
        #[arg(long, value_name = "FILE")]
        warrant_keys: Option<PathBuf>,
        /// A gateway's public key that was had by another way.
        #[arg(long, value_name = "AGENT=FILE", value_parser = crate::parse::pair)]
        agent_key: Vec<(String, String)>,
        /// The export is of this agent alone: what anchors say of others is not missed.
        #[arg(long)]
        agent: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only those of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Only those of this command.
    #[arg(long, value_name = "ID")]
    command: Option<String>,
    /// The most to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Args {
    /// # Errors
    /// The backend's refusal, that it can't be reached, or a file that can't be used.
    pub fn run(self, connect: impl FnOnce() -> Result<Client, Error>, out: &Out) -> Result<Exit, Error> {
        match self.command {
            None => list(&connect()?, out, &self.filter),
            Some(Command::List(filter)) => list(&connect()?, out, &filter),
            Some(Command::Export { file, agent }) => export(&connect()?, out, &file, agent.as_deref()),
            Some(Command::Verify { file, warrant_keys, agent_key, agent }) => {
                let trust = trust(warrant_keys.as_deref(), &agent_key, agent.as_deref())?;
                verify(out, &file, &trust)
            }
        }
    }
}

const COLUMNS: &[Column] = &[
    ("AGENT", Field("agent")),
    ("CHAIN", By(chain)),
    ("SEQ", Field("seq")),
    ("AT", Moment("at")),
    ("COMMAND", Field("command")),
    ("FAULT", Field("fault")),
    ("SHA256", By(|receipt| cell(&receipt["sha256"]).chars().take(16).collect())),
];

/// The first of the key's id, and the boot where the chain is one boot's.
fn chain(receipt: &Value) -> String {
    let key: String = cell(&receipt["key"]).chars().take(8).collect();
    match receipt["boot"].as_str() {
        Some(boot) => format!("{key}/{}", boot.chars().take(8).collect::<String>()),
        None => key,
    }
}

fn list(client: &Client, out: &Out, filter: &Filter) -> Result<Exit, Error> {
    let query = listing::given(&[("agent", &filter.agent), ("command", &filter.command)]);
    listing::show(client, out, "/receipts", &query, filter.limit, COLUMNS)
}

/// Receipts page by page into the file, so that they take no memory. Anchors are read to
/// their end before the receipts that they tell of, else one that is signed meanwhile would
/// tell of receipts that the export has not.
fn export(client: &Client, out: &Out, path: &Path, agent: Option<&str>) -> Result<Exit, Error> {
    let file = File::create_new(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Usage(format!("{} exists already", path.display())),
        _ => Error::file("write the export", path)(source),
    })?;
    let mut file = BufWriter::new(file);
    let of: Vec<(&str, String)> = agent.iter().map(|agent| ("agent", (*agent).to_owned())).collect();
    let mut counts = [0_u64; 3];
    let mut anchors = Vec::new();
    each(client, "/receipts/anchors", &[], |item| {
        anchors.push(json!({ "anchor": item["envelope"] }).to_string());
        Ok(())
    })?;
    each(client, "/receipts/keys", &of, |key| {
        counts[0] += 1;
        line(&mut file, path, &json!({ "key": { "agent": key["agent"], "pem": key["pem"] } }).to_string())
    })?;
    each(client, "/receipts", &of, |receipt| {
        counts[1] += 1;
        line(&mut file, path, &json!({ "receipt": receipt["envelope"] }).to_string())
    })?;
    for anchor in &anchors {
        counts[2] += 1;
        line(&mut file, path, anchor)?;
    }
    file.flush().map_err(Error::file("write the export", path))?;
    let [keys, receipts, anchors] = counts;
    let told = json!({ "file": path, "keys": keys, "receipts": receipts, "anchors": anchors });
    out.show(&told, |_| format!("{receipts} receipts, {keys} keys, {anchors} anchors in {}\n", path.display()))?;
    Ok(Exit::Succeeded)
}

fn line(file: &mut impl Write, path: &Path, text: &str) -> Result<(), Error> {
    writeln!(file, "{text}").map_err(Error::file("write the export", path))
}

/// Every item of a list, a page in memory at a time.
fn each(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
    mut take: impl FnMut(&Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let mut page = query.to_vec();
        page.push(("limit", PAGE.to_string()));
        page.extend(after.take().map(|cursor| ("after", cursor)));
        let answer = client.get(path, &page)?;
        answer["items"].as_array().into_iter().flatten().try_for_each(&mut take)?;
        match answer["next"].as_str() {
            Some(cursor) => after = Some(cursor.to_owned()),
            None => return Ok(()),
        }
    }
}

fn trust(warrant: Option<&Path>, agents: &[(String, String)], only: Option<&str>) -> Result<Trust, Error> {
    let agent = |id: &str| id.parse::<AgentId>().map_err(|e| Error::Usage(e.to_string()));
    let mut trust = Trust { only: only.map(agent).transpose()?, ..Trust::default() };
    if let Some(path) = warrant {
        trust.anchors = keys(path)?;
    }
    for (id, path) in agents {
        let id = agent(id)?;
        trust.agents.extend(keys(Path::new(path))?.into_iter().map(|key| (id.clone(), key)));
    }
    if trust.anchors.is_empty() && trust.agents.is_empty() {
        return Err(Error::Usage(
            "an export does not vouch for its own keys: give --warrant-keys, or --agent-key AGENT=FILE".into(),
        ));
    }
    Ok(trust)
}

fn keys(path: &Path) -> Result<Vec<PublicKey>, Error> {
    let pem = std::fs::read_to_string(path).map_err(Error::file("read the key", path))?;
    PublicKey::all_from_pem(&pem).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))
}

fn verify(out: &Out, path: &Path, trust: &Trust) -> Result<Exit, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read the export", path))?;
    let summary = verify_export(text.lines(), trust);
    let value = serde_json::to_value(&summary).map_err(|e| Error::Usage(e.to_string()))?;
    out.show(&value, |_| shown(&summary))?;
    if summary.is_sound() {
        out.note(&format!("{} receipts in {} chains hold", summary.receipts, summary.chains.len()));
        Ok(Exit::Succeeded)
    } else {
        out.note(&format!("{} faults", summary.fault_count));
        Ok(Exit::Failed)
    }
}

fn shown(summary: &Summary) -> String {
    let mut table = Table::new(["AGENT", "CHAIN", "FROM", "TO", "ANCHORED", "HEAD"]);
    for chain in &summary.chains {
        let key: String = chain.key.chars().take(8).collect();
        table.row([
            chain.agent.to_string(),
            chain.boot.as_ref().map_or_else(|| key.clone(), |boot| format!("{key}/{boot}")),
            chain.first.to_string(),
            chain.last.seq.to_string(),
            chain.anchored.map_or_else(|| "-".to_owned(), |seq| seq.to_string()),
            chain.last.sha256.chars().take(16).collect(),
        ]);
    }
    let mut text = table.to_string();
    for fault in summary.faults.iter().take(SHOWN) {
        text.push_str(&format!("FAULT {}\n", crate::output::plain(&fault.to_string())));
    }
    if summary.fault_count > SHOWN as u64 {
        text.push_str(&format!("and {} more\n", summary.fault_count - SHOWN as u64));
    }
    text
}
