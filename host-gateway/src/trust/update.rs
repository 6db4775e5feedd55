//! One update of the repository's metadata, file by file over the link: which file is asked
//! for, how long it may take, how many there may be. Refuses files that nobody asked for
//! and more of them than an update can need. Pure; who sends the frames is `link`.

use std::time::Duration;

use viworks_signing::tuf::{Client, Step, TufError};

/// How long a file may take to come, and how often it is asked for.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const ATTEMPTS: u32 = 3;

/// Files of one update, over all roots and roles.
const MAX_FILES: u32 = 512;
/// Bytes of one update.
const MAX_BYTES: usize = 64 << 20;

/// An update under way.
#[derive(Debug)]
pub struct Update {
    client: Client,
    wanted: Option<(String, u64)>,
    files: u32,
    bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("the repository's metadata is refused")]
    Refused(#[from] TufError),
    #[error("{name} has {bytes} bytes, at most {max} are read")]
    Size { name: String, bytes: usize, max: u64 },
    #[error("an update of more than {MAX_FILES} files or {MAX_BYTES} bytes")]
    Endless,
    #[error("{name} did not come")]
    Silence { name: String },
}

impl UpdateError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Size { .. } | Self::Endless => "E_TUF_SIZE",
            Self::Silence { .. } => "E_TUF_SILENCE",
        }
    }
}

impl Update {
    pub(super) fn new(client: Client) -> Self {
        let mut update = Self { client, wanted: None, files: 0, bytes: 0 };
        update.advance();
        update
    }

    /// The file to ask for; `None`: the update is complete.
    #[must_use]
    pub fn wanted(&self) -> Option<&str> {
        self.wanted.as_ref().map(|(name, _)| name.as_str())
    }

    /// Take a file, or that there is none of that name. Whether it was the wanted one: what
    /// was asked for twice comes twice.
    ///
    /// # Errors
    /// Ends the update. What was verified before is worth keeping.
    pub fn take(&mut self, name: &str, text: Option<&str>) -> Result<bool, UpdateError> {
        let Some((wanted, max)) = self.wanted.clone().filter(|(wanted, _)| wanted == name) else { return Ok(false) };
        let bytes = text.map_or(0, str::len);
        if bytes as u64 > max {
            return Err(UpdateError::Size { name: wanted, bytes, max });
        }
        (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
        if self.files > MAX_FILES || self.bytes > MAX_BYTES {
            return Err(UpdateError::Endless);
        }
        self.client.supply(text.map(str::as_bytes))?;
        self.advance();
        Ok(true)
    }

    /// It was asked for often enough.
    #[must_use]
    pub fn silence(&self) -> UpdateError {
        UpdateError::Silence { name: self.wanted().unwrap_or_default().to_owned() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn advance(&mut self) {
        self.wanted = match self.client.next() {
            Step::Fetch { name, max } => Some((name, max)),
            Step::Done => None,
        };
    }
}
