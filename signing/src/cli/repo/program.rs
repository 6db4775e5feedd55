//! `repo add-program`: the gateway's own program into the repository, for gateways that update
//! themselves. Refuses what is too large, and other bytes under a version that is
//! known.

use clap::Args;
use std::path::PathBuf;
use viworks_signing::tuf::repo::GatewayProgram;
use viworks_signing::tuf::{MAX_PROGRAM, PROGRAM_TARGET};

use super::super::{Error, Exit, files};
use super::{Fault, Keys, change};

/// Release a version of viworks-gateway, to all hosts that follow its channel or some percent.
#[derive(Debug, Args)]
#[command(after_help = "\
Hosts take it whose gateway.toml says [self_update] enabled = true and names the channel. Give the
same file and version with another percent to stage it further, or to stop at those who have it.

Examples:
  viworks-sign repo add-program releases viworks-gateway --version 0.2.0 --percent 5 \\
    --key file:keys/release.key.pem --key file:keys/security.key.pem \\
    --key env:SNAPSHOT_KEY --key env:TIMESTAMP_KEY
  viworks-sign repo add-program releases viworks-gateway --version 0.2.0 --channel canary --key …")]
pub(super) struct AddProgram {
    /// The repository's folder
    dir: PathBuf,
    /// The program
    program: PathBuf,
    /// The program's version
    #[arg(long)]
    version: semver::Version,
    /// Its platform
    #[arg(long, default_value = PROGRAM_TARGET)]
    platform: String,
    /// Hosts that follow this channel
    #[arg(long, default_value = "stable", value_parser = channel)]
    channel: String,
    /// How many of them in a hundred
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100))]
    percent: u32,
    #[command(flatten)]
    keys: Keys,
}

impl AddProgram {
    pub fn run(&self) -> Result<Exit, Error> {
        let bytes = files::read(&self.program, usize::try_from(MAX_PROGRAM).unwrap_or(usize::MAX))?;
        let what = format!("viworks-gateway {} for {} in a hundred of {}", self.version, self.percent, self.channel);
        change(&self.dir, &self.keys, &what, |repo, now| {
            let program = GatewayProgram {
                version: &self.version,
                platform: &self.platform,
                bytes: &bytes,
                channel: &self.channel,
                percent: self.percent,
            };
            Ok(repo.add_program(&program, now).map_err(Fault::from)?)
        })
    }
}

fn channel(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = !text.is_empty() && text.len() <= 32 && text.bytes().all(plain);
    if fits { Ok(text.to_owned()) } else { Err("a to z, 0 to 9 and -, at most 32".to_owned()) }
}
