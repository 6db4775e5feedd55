//! `viworks-sign keygen`: a new key pair in two files. Refuses to overwrite either.

use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use viworks_signing::at_rest;
use viworks_signing::keys::SecretKey;

use super::keyref::Password;
use super::{Error, Exit, files, output};

/// Make a release key: PREFIX.key.pem (private, mode 0600) and PREFIX.pub.pem.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign keygen --out keys/release
  PW=… viworks-sign keygen --out keys/release --password-env PW   # encrypted at rest
  openssl pkey -in keys/release.key.pem -noout -text              # plain PKCS#8")]
pub(crate) struct Keygen {
    /// Path and beginning of the two files' names; nothing is overwritten
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
    #[command(flatten)]
    password: Password,
}

impl Keygen {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let (private, public) = (with_suffix(&self.out, ".key.pem"), with_suffix(&self.out, ".pub.pem"));
        for path in [&private, &public] {
            if path.symlink_metadata().is_ok() {
                return Err(Error::Exists { path: path.clone() });
            }
        }
        let name = private.display().to_string();
        let fault = |source: at_rest::Error| Error::Key { name: name.clone(), source };
        let key = SecretKey::generate();
        let pem = match self.password.read()? {
            Some(password) => at_rest::seal(&key, password.as_bytes()).map_err(fault)?,
            None => key.to_pem().map_err(|error| fault(error.into()))?,
        };
        let public_pem = key.public().to_pem().map_err(|error| fault(error.into()))?;
        files::create(&private, 0o600, pem.as_bytes())?;
        files::create(&public, 0o644, public_pem.as_bytes())?;
        output::lines([
            format!("private key  {}", private.display()),
            format!("public key   {}", public.display()),
            format!("key id       {}", key.public().id()),
        ])?;
        Ok(Exit::Done)
    }
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    path.into()
}
