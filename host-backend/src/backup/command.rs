//! `backup`, `restore` and `import` on the command line.

use clap::Subcommand;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{BackupError, Summary, backup, import, restore};
use crate::clock::{Clock, rfc3339};
use crate::config::{Config, Faults};

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Write the store and its keys to one file, while the backend runs or not.
    Backup {
        #[arg(long)]
        config: Option<PathBuf>,
        /// A new file, readable for its owner alone. It holds the key that signs warrants.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the store and keys of a new installation from a backup.
    Restore {
        #[arg(long)]
        config: Option<PathBuf>,
        file: PathBuf,
    },
    /// Bring a SQLite store, whose backend is stopped, into the configured empty one.
    Import {
        #[arg(long)]
        config: Option<PathBuf>,
        /// The `viworks.db` of the stopped backend.
        #[arg(long)]
        from: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Config(#[from] Faults),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("standard output")]
    Output(#[from] io::Error),
}

/// # Errors
/// What kept it from its end.
pub async fn run(command: BackupCommand) -> Result<ExitCode, CommandError> {
    let now_ms = Clock::default().now_ms();
    let load = |config: Option<PathBuf>| Config::load(config.as_deref());
    let mut out = io::stdout();
    match command {
        BackupCommand::Backup { config, out: file } => {
            let summary = backup(&load(config)?, &file, now_ms).await?;
            show(&mut out, &summary)?;
            writeln!(out, "backed up to {}", file.display())?;
        }
        BackupCommand::Restore { config, file } => {
            let summary = restore(&load(config)?, &file, now_ms).await?;
            show(&mut out, &summary)?;
            writeln!(out, "restored the state of {}", rfc3339(summary.at_ms))?;
            writeln!(out, "what was decided since must be decided again: revoke tokens, agents and plugins that were")?;
        }
        BackupCommand::Import { config, from } => {
            let summary = import(&load(config)?, &from, now_ms).await?;
            show(&mut out, &summary)?;
            writeln!(out, "imported {}; every row was compared", from.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut impl io::Write, summary: &Summary) -> io::Result<()> {
    for (table, rows) in &summary.tables {
        writeln!(out, "{table}\t{rows}")?;
    }
    summary.keys.iter().try_for_each(|key| writeln!(out, "{key}"))
}
