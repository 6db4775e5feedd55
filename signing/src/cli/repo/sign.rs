//! `repo sign` and `repo timestamp`: signatures of one person after another, and the clock
//! that says the repository is alive.

use clap::Args;
use std::path::PathBuf;

use super::super::{Error, Exit};
use super::{Keys, change};

/// Give your signature to every draft that waits for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Look at what you sign first: 'viworks-sign repo show DIR' and the files in DIR/pending.

Examples:
  viworks-sign repo sign releases --key file:/media/mine/root-2.key.pem
  viworks-sign repo sign releases --key 'pkcs11:token=security;object=release?pin-source=file:/run/pin'")]
pub(super) struct Sign {
    /// The repository's folder
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
}

impl Sign {
    pub fn run(&self) -> Result<Exit, Error> {
        change(&self.dir, &self.keys, "signed", |_, _| Ok(()))
    }
}

/// Publish what is complete, with a new timestamp; run it by a timer, several times before it expires.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign repo timestamp releases --key env:SNAPSHOT_KEY --key env:TIMESTAMP_KEY
  0 */6 * * *  viworks-sign repo timestamp /srv/releases --key file:/etc/viworks/snapshot.key.pem \\
                 --key file:/etc/viworks/timestamp.key.pem                     # cron")]
pub(super) struct Timestamp {
    /// The repository's folder
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
}

impl Timestamp {
    pub fn run(&self) -> Result<Exit, Error> {
        change(&self.dir, &self.keys, "timestamped", |_, _| Ok(()))
    }
}
