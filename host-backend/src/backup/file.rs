//! The file of a backup: lines of JSON, the last of which is the SHA-256 of all before it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::BackupError;

/// The newest form that is known here.
pub(super) const FORMAT: u32 = 1;
/// A line holds a component at most, as hex.
const LONGEST_LINE: u64 = 512 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "viworks_backup")]
    pub format: u32,
    /// Of the backend that wrote it.
    pub version: String,
    pub engine: String,
    /// When the state was the store's.
    pub at: String,
    pub at_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Key {
    #[serde(rename = "key")]
    pub name: String,
    pub text: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// Of the table that was named last.
    Row(Vec<Value>),
    Table {
        #[serde(rename = "table")]
        name: String,
        columns: Vec<String>,
    },
    Key(Key),
    Header(Header),
    /// The table's end, and how many rows it has.
    End {
        rows: u64,
    },
    Digest {
        sha256: String,
    },
}

pub(super) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    digest: Sha256,
}

impl Writer {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file: BufWriter::new(file), path, digest: Sha256::new() }
    }

    pub(super) fn write(&mut self, line: &Line) -> Result<(), BackupError> {
        let failed = |source| BackupError::Write { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        self.digest.update(&text);
        self.file.write_all(&text).map_err(failed)
    }

    /// With the digest; everything is given to the system then.
    pub(super) fn finish(mut self) -> Result<File, BackupError> {
        let sha256 = hex::encode(self.digest.clone().finalize());
        self.write(&Line::Digest { sha256 })?;
        let Self { file, path, .. } = self;
        file.into_inner().map_err(|e| BackupError::Write { path, source: e.into_error() })
    }
}

pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    digest: Sha256,
    ended: bool,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, BackupError> {
        let read = |source| BackupError::Read { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(read)?);
        Ok(Self { file, path: path.to_owned(), digest: Sha256::new(), ended: false })
    }

    fn broken(&self, what: impl Into<String>) -> BackupError {
        BackupError::Broken { path: self.path.clone(), what: what.into() }
    }

    /// The first line.
    pub(super) fn header(&mut self) -> Result<Header, BackupError> {
        match self.next()? {
            Some((Line::Header(header), _)) if header.format == FORMAT => Ok(header),
            Some((Line::Header(header), _)) => {
                Err(BackupError::Format { path: self.path.clone(), format: header.format })
            }
            _ => Err(self.broken("it has no header")),
        }
    }

    /// The next line and its length; `None` after the digest, which holds.
    pub(super) fn next(&mut self) -> Result<Option<(Line, usize)>, BackupError> {
        use std::io::Read as _;
        let read = |source| BackupError::Read { path: self.path.clone(), source };
        let mut text = Vec::new();
        let length = (&mut self.file).take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(read)?;
        if self.ended {
            return if length == 0 { Ok(None) } else { Err(self.broken("something follows its end")) };
        }
        if text.pop() != Some(b'\n') {
            return Err(self.broken("it is cut off"));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|e| self.broken(e.to_string()))?;
        if let Line::Digest { sha256 } = &line {
            if *sha256 != hex::encode(self.digest.clone().finalize()) {
                return Err(self.broken("its digest is another"));
            }
            self.ended = true;
            return self.next();
        }
        self.digest.update(&text);
        self.digest.update(b"\n");
        Ok(Some((line, length)))
    }

    /// Read to the end.
    pub(super) fn check(mut self) -> Result<(), BackupError> {
        self.header()?;
        let (mut rows, mut inside) = (0, false);
        while let Some((line, _)) = self.next()? {
            match line {
                Line::Table { .. } if !inside => (rows, inside) = (0, true),
                Line::Row(_) if inside => rows += 1,
                Line::End { rows: count } if inside && count == rows => inside = false,
                Line::Key(_) if !inside => {}
                _ => return Err(self.broken("its lines are out of order, or not all there")),
            }
        }
        Ok(())
    }
}
