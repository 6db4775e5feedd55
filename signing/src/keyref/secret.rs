//! Where a secret comes from: a variable, a file of its owner's or an open descriptor.
//! Never the command line, where every process sees it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use zeroize::Zeroizing;

use super::Error;

/// No key or password is longer, in bytes.
const MAX: usize = 16 * 1024;

/// The place of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Env(String),
    /// Only its owner may be able to read it.
    File(PathBuf),
    /// A descriptor that was open when the program started.
    Fd(u32),
}

impl Source {
    /// `env:VAR`, `file:PATH` or `fd:N`.
    ///
    /// # Errors
    /// [`Error::Source`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("env", variable)) if !variable.is_empty() => Ok(Self::Env(variable.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fd", number)) if number.parse::<u32>().is_ok() => Ok(Self::Fd(number.parse().unwrap_or_default())),
            _ => Err(Error::Source { text: text.to_owned() }),
        }
    }

    /// The whole text.
    pub(crate) fn read(&self) -> Result<Zeroizing<String>, Error> {
        let (name, path) = match self {
            Self::Env(variable) => {
                return match std::env::var(variable) {
                    Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text)),
                    _ => Err(Error::Variable { variable: variable.clone() }),
                };
            }
            Self::File(path) => (path.display().to_string(), path.clone()),
            Self::Fd(number) => (format!("descriptor {number}"), PathBuf::from(format!("/dev/fd/{number}"))),
        };
        let io = |source| Error::Read { name: name.clone(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
        if matches!(self, Self::File(_)) && mode & 0o077 != 0 {
            return Err(Error::Readable { name, mode });
        }
        // Large enough from the start: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX + 1));
        file.take(MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() > MAX {
            return Err(Error::TooLarge { name });
        }
        String::from_utf8(std::mem::take(&mut bytes)).map(Zeroizing::new).map_err(|_| Error::Text { name })
    }

    /// The first line, for passwords and PINs; never empty.
    ///
    /// # Errors
    /// When it can't be read, or is empty.
    pub fn read_line(&self) -> Result<Zeroizing<String>, Error> {
        let text = self.read()?;
        let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
        if line.is_empty() { Err(Error::EmptyPassword) } else { Ok(line) }
    }
}
