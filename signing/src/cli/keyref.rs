//! The arguments that name a password's place. Never the command line itself, where every
//! process sees it.

use clap::Args;
use std::path::PathBuf;
use viworks_signing::keyref::{self, Source};
use viworks_signing::signer::Signer;

use super::Error;

/// Where the password of encrypted keys comes from.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Environment variable that holds the key's password
    #[arg(long, value_name = "VAR")]
    password_env: Option<String>,
    /// File whose first line is the key's password (mode 0600)
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// Open file descriptor whose first line is the key's password
    #[arg(long, value_name = "N", conflicts_with_all = ["password_env", "password_file"])]
    password_fd: Option<u32>,
}

impl Password {
    pub(crate) fn source(&self) -> Option<Source> {
        let file = || self.password_file.clone().map(Source::File);
        self.password_env.clone().map(Source::Env).or_else(file).or(self.password_fd.map(Source::Fd))
    }

    /// The keys that `references` name.
    pub(crate) fn signers(&self, references: &[String]) -> Result<Vec<Box<dyn Signer>>, Error> {
        Ok(keyref::signers(references.iter().map(String::as_str), self.source().as_ref())?)
    }
}
