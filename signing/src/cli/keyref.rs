//! Private keys by reference (`file:PATH`, a path, `env:VAR`) and passwords by file or
//! variable. Refuses secrets on the command line, and key files that others can read.

use clap::Args;
use std::path::{Path, PathBuf};
use viworks_signing::at_rest;
use viworks_signing::keys::SecretKey;
use zeroize::Zeroizing;

use super::{Error, files};

/// Where a password comes from. Never the command line, where every process sees it.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Environment variable that holds the key's password
    #[arg(long, value_name = "VAR", conflicts_with = "password_file")]
    password_env: Option<String>,
    /// File whose first line is the key's password (mode 0600)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    pub(crate) fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        let text = match (&self.password_env, &self.password_file) {
            (Some(variable), _) => variable_of(variable)?,
            (None, Some(path)) => files::read_secret(path)?,
            (None, None) => return Ok(None),
        };
        let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
        if line.is_empty() { Err(Error::EmptyPassword) } else { Ok(Some(line)) }
    }
}

/// The private key that `reference` names.
pub(crate) fn secret_key(reference: &str, password: &Password) -> Result<SecretKey, Error> {
    let pem = match reference.split_once(':') {
        Some(("env", variable)) if !variable.is_empty() => variable_of(variable)?,
        Some(("file", path)) if !path.is_empty() => files::read_secret(Path::new(path))?,
        None if !reference.is_empty() => files::read_secret(Path::new(reference))?,
        _ => return Err(Error::Reference { reference: reference.to_owned() }),
    };
    let key = |source| Error::Key { name: reference.to_owned(), source };
    match (at_rest::is_encrypted(&pem), password.read()?) {
        (true, Some(password)) => at_rest::open(&pem, password.as_bytes()).map_err(key),
        (true, None) => Err(Error::NoPassword),
        (false, Some(_)) => Err(Error::UnneededPassword),
        (false, None) => SecretKey::from_pem(&pem).map_err(|error| key(error.into())),
    }
}

fn variable_of(variable: &str) -> Result<Zeroizing<String>, Error> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text)),
        _ => Err(Error::Variable { variable: variable.to_owned() }),
    }
}
