//! The program's command line: `run`, `check`, `token`, `init-keys`, and what [`crate::backup`] adds. Writes results to
//! standard output, everything else to standard error.

use clap::{Args, Parser, Subcommand};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, AppError};
use crate::authz::NewToken;
use crate::backup::{self, BackupCommand, CommandError};
use crate::clock::{Clock, rfc3339};
use crate::config::{Config, Fault, Faults};
use crate::hub::Tls;
use crate::keys;
use crate::store::model::{AuditEntry, Decision, PageOf, Role, Token};
use crate::store::{Store, StoreError};

#[derive(Debug, Parser)]
#[command(name = "viworks-backend", version, about = "The ViWorkS backend")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct At {
    /// Configuration file; by default VIW_BACKEND_CONFIG or /etc/viworks/backend.toml.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and agents until SIGTERM.
    Run(At),
    /// Tell every fault of the configuration and of the files that it names.
    Check(At),
    /// Make the key that signs warrants, unless it is there.
    InitKeys(At),
    /// Bearer tokens of the API.
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(flatten)]
    Backup(BackupCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make one and print it, this once.
    Create {
        #[command(flatten)]
        at: At,
        #[arg(long)]
        name: String,
        /// viewer, operator, publisher or admin.
        #[arg(long)]
        role: Role,
        /// For example 90d; without it the token does not expire.
        #[arg(long)]
        expires: Option<humantime::Duration>,
    },
    /// Names, roles and expiry of all.
    List(At),
    /// Make one worthless.
    Revoke {
        #[command(flatten)]
        at: At,
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] Faults),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the store")]
    Store(#[from] StoreError),
    #[error("keys")]
    Key(#[from] keys::KeyError),
    #[error(transparent)]
    Backup(#[from] CommandError),
    #[error("{0}")]
    Refused(String),
    #[error("standard output")]
    Output(#[from] io::Error),
}

impl Cli {
    /// # Errors
    /// What kept the command from its end.
    pub async fn execute(self) -> Result<ExitCode, CliError> {
        match self.command {
            Command::Run(at) => {
                let config = at.load()?;
                crate::log::init(config.log_format, None);
                Ok(if app::run(config).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Command::Check(at) => check(at.load()),
            Command::InitKeys(at) => {
                let path = at.load()?.warrant_key();
                keys::secret_or_new(&path)?;
                writeln!(io::stdout(), "{}", keys::public_half(&path).display())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Token(command) => token(command).await,
            Command::Backup(command) => Ok(backup::run(command).await?),
        }
    }
}

impl At {
    fn load(&self) -> Result<Config, Faults> {
        Config::load(self.config.as_deref())
    }
}

fn check(config: Result<Config, Faults>) -> Result<ExitCode, CliError> {
    let mut faults = Vec::new();
    match config {
        Err(Faults(found)) => faults.extend(found),
        Ok(config) => {
            let mut note = |key: &str, error: &dyn std::error::Error| {
                let source = error.source().map(|s| format!(": {s}")).unwrap_or_default();
                faults.push(Fault { key: key.to_owned(), message: format!("{error}{source}") });
            };
            if let Err(error) = Tls::load(app::tls_files(&config)) {
                note("agents_cert, agents_key, agents_client_ca, agents_crl", &error);
            }
            if let Err(error) = keys::release_keys(&config.release_keys) {
                note("release_keys", &error);
            }
            let path = config.warrant_key();
            // An absent one is made by the first run.
            if path.exists()
                && let Err(error) = keys::secret(&path)
            {
                note("warrant_key", &error);
            }
            match app::make_data_dir(&config).map(|()| writable(&config.data_dir)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => note("data_dir", &error),
                Err(error) => note("data_dir", &error),
            }
        }
    }
    let mut out = io::stdout().lock();
    for Fault { key, message } in &faults {
        writeln!(out, "{key}: {message}")?;
    }
    if faults.is_empty() {
        writeln!(out, "no faults")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn writable(dir: &std::path::Path) -> io::Result<()> {
    let file = dir.join(".write-test");
    std::fs::write(&file, b"")?;
    std::fs::remove_file(file)
}

async fn open(config: &Config) -> Result<Store, CliError> {
    app::make_data_dir(config)?;
    Ok(Store::open(&config.database()).await?)
}

fn audit(action: &str, subject: &str, at_ms: u64, detail: String) -> AuditEntry {
    let (actor, decision) = ("console".to_owned(), Decision::Allowed);
    AuditEntry { at_ms, actor, action: action.to_owned(), subject: subject.to_owned(), decision, detail }
}

async fn token(command: TokenCommand) -> Result<ExitCode, CliError> {
    let now = Clock::default().now_ms();
    let mut out = io::stdout();
    match command {
        TokenCommand::Create { at, name, role, expires } => {
            if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
                return Err(CliError::Refused("a name has 1 to 64 characters, none of them control characters".into()));
            }
            let store = open(&at.load()?).await?;
            let made = NewToken::generate().map_err(|e| CliError::Refused(e.to_string()))?;
            let after = |d: humantime::Duration| now.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
            let token = Token {
                name: name.clone(),
                role,
                sha256: *made.hash().as_bytes(),
                created_ms: now,
                expires_ms: expires.map(after),
            };
            let done = store.create_token(token, audit("token.create", &name, now, role.to_string())).await;
            store.close().await;
            if !done? {
                return Err(CliError::Refused(format!("there is a token named {name:?} already")));
            }
            writeln!(out, "{}", made.reveal())?;
        }
        TokenCommand::List(at) => {
            let store = open(&at.load()?).await?;
            let mut page = PageOf::first(1_000);
            loop {
                let found = store.tokens(&page).await?;
                for token in found.items {
                    let expires = token.expires_ms.map_or_else(|| "never".to_owned(), rfc3339);
                    writeln!(out, "{}\t{}\t{}\t{expires}", token.name, token.role, rfc3339(token.created_ms))?;
                }
                page.after = found.next;
                if page.after.is_none() {
                    break;
                }
            }
            store.close().await;
        }
        TokenCommand::Revoke { at, name } => {
            let store = open(&at.load()?).await?;
            let done = store.revoke_token(name.clone(), audit("token.revoke", &name, now, String::new())).await;
            store.close().await;
            if !done? {
                return Err(CliError::Refused(format!("there is no token named {name:?}")));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
