//! Backups: one state of the store and the keys that go with it, in one file that either
//! engine can be filled from. Lines of JSON: a header; each table with its rows; key files;
//! a digest over all of it, which is checked before anything is believed. Refuses a store
//! or data directory that holds anything, files of a later form, and to overwrite.

mod command;
mod file;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::clock::rfc3339;
use crate::config::Config;
use crate::keys;
use crate::store::copy::{Filling, Restored, Snapshot, TABLES};
use crate::store::model::{AuditEntry, Decision};
use crate::store::url::StoreUrl;
use crate::store::{Store, StoreError};
pub use command::{BackupCommand, CommandError, run};
use file::{FORMAT, Header, Key, Line, Reader, Writer};

/// Rows that go into a store at a time, and about how many bytes.
const ROWS: usize = 500;
const ROWS_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the store")]
    Store(#[from] StoreError),
    #[error("{path} can't be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} can't be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is there already")]
    Exists { path: PathBuf },
    #[error("{path} is no whole backup: {what}")]
    Broken { path: PathBuf, what: String },
    #[error("{path} is of format {format}; {FORMAT} is the newest known here")]
    Format { path: PathBuf, format: u32 },
    #[error("{path} is of a newer backend: there is no table {table:?} here")]
    Table { path: PathBuf, table: String },
    #[error("the data directory {path} is not empty: restore into a new one")]
    NotEmpty { path: PathBuf },
    #[error("a backend runs on {path}: stop it first")]
    Runs { path: PathBuf },
}

/// What was backed up or brought in.
#[derive(Debug, Default)]
pub struct Summary {
    pub tables: Vec<(String, u64)>,
    pub keys: Vec<String>,
    /// When the state was the store's, Unix milliseconds.
    pub at_ms: u64,
}

/// The key files that are as important as the store, with the names that backups give them.
fn key_files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let warrant = config.warrant_key();
    vec![("warrant.pub.pem", keys::public_half(&warrant)), ("warrant.key.pem", warrant)]
}

/// Write the store's state of now, and the keys, to a new file that its owner alone may
/// read. Nobody who works on the store waits for it.
///
/// # Errors
/// What kept it from being whole; no file is left then.
pub async fn backup(config: &Config, out: &Path, now_ms: u64) -> Result<Summary, BackupError> {
    if out.exists() {
        return Err(BackupError::Exists { path: out.to_owned() });
    }
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = |source| BackupError::Write { path: part.clone(), source };
    let handle = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(write)?;
    let written = fill(&config.database(), &key_files(config), Writer::new(handle, part.clone()), now_ms).await;
    let (summary, handle) = written.inspect_err(|_| drop(fs::remove_file(&part)))?;
    handle.sync_all().map_err(write)?;
    fs::rename(&part, out).map_err(|source| BackupError::Write { path: out.to_owned(), source })?;
    Ok(summary)
}

async fn fill(
    url: &StoreUrl,
    keys: &[(&'static str, PathBuf)],
    mut writer: Writer,
    now_ms: u64,
) -> Result<(Summary, File), BackupError> {
    let mut snapshot = Snapshot::open(url).await?;
    let engine = match url {
        StoreUrl::Sqlite(_) => "sqlite",
        StoreUrl::Postgres(_) => "postgres",
    };
    let header = Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: engine.to_owned(),
        at: rfc3339(now_ms),
        at_ms: now_ms,
    };
    writer.write(&Line::Header(header))?;
    let mut summary = Summary { at_ms: now_ms, ..Summary::default() };
    for table in TABLES {
        let columns = snapshot.columns(table).await?;
        if columns.is_empty() {
            // The store is of an older form.
            continue;
        }
        writer.write(&Line::Table { name: table.name.to_owned(), columns: columns.clone() })?;
        let mut rows = 0;
        snapshot
            .rows(table, &columns, |row| {
                rows += 1;
                writer.write(&Line::Row(row))
            })
            .await?;
        writer.write(&Line::End { rows })?;
        summary.tables.push((table.name.to_owned(), rows));
    }
    for (name, path) in keys {
        match fs::read_to_string(path) {
            Ok(text) => writer.write(&Line::Key(Key { name: (*name).to_owned(), text }))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(BackupError::Read { path: path.clone(), source }),
        }
        summary.keys.push((*name).to_owned());
    }
    Ok((summary, writer.finish()?))
}

/// Make a new installation's store and keys from a backup.
///
/// # Errors
/// What is wrong with the backup, or what is there already: nothing is changed then.
pub async fn restore(config: &Config, from: &Path, now_ms: u64) -> Result<Summary, BackupError> {
    // All of it is read before any of it is believed.
    Reader::open(from)?.check()?;
    let data_dir = &config.data_dir;
    match fs::read_dir(data_dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(BackupError::NotEmpty { path: data_dir.clone() });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(BackupError::Read { path: data_dir.clone(), source }),
    }
    if let Some((_, path)) = key_files(config).into_iter().find(|(_, path)| path.exists()) {
        return Err(BackupError::Exists { path });
    }
    make(data_dir)?;
    // A file that is whole takes its name at the end; what is half there has another.
    let (url, name) = match config.database() {
        StoreUrl::Sqlite(file) => (StoreUrl::Sqlite(data_dir.join("restoring.db")), Some(file)),
        url @ StoreUrl::Postgres(_) => (url, None),
    };
    let summary = match resume(config, from, &url, now_ms).await {
        Ok(summary) => summary,
        Err(error) => {
            if let StoreUrl::Sqlite(file) = &url {
                remove(file);
            }
            return Err(error);
        }
    };
    if let (StoreUrl::Sqlite(part), Some(file)) = (&url, name) {
        // What is in its log would stay behind.
        crate::store::copy::gather_into_one(part).await?;
        fs::rename(part, &file).map_err(|source| BackupError::Write { path: file, source })?;
    }
    Ok(summary)
}

fn remove(database: &Path) {
    for tail in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(tail);
        // What was not made needs no removal.
        let _ = fs::remove_file(path);
    }
}

fn make(dir: &Path) -> Result<(), BackupError> {
    let write = |source| BackupError::Write { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(write)
}

/// Store, keys, and what the audit record has to say of it.
async fn resume(config: &Config, from: &Path, url: &StoreUrl, now_ms: u64) -> Result<Summary, BackupError> {
    let header = Reader::open(from)?.header()?;
    let (tables, found) = bring(from, url, Some(Restored { at_ms: now_ms, backup_ms: header.at_ms })).await?;
    for (name, path) in key_files(config) {
        if let Some(key) = found.iter().find(|key| key.name == name) {
            write_key(&path, &key.text)?;
        }
    }
    let detail = format!("from a backup of {} by {} on {}", header.at, header.version, header.engine);
    note(url, "store.restore", from, detail, now_ms).await?;
    Ok(Summary { tables, keys: found.into_iter().map(|key| key.name).collect(), at_ms: header.at_ms })
}

/// Fill an empty store, and read all of it again; answers the rows of each table, and the
/// keys that came with them.
async fn bring(
    from: &Path,
    url: &StoreUrl,
    restored: Option<Restored>,
) -> Result<(Vec<(String, u64)>, Vec<Key>), BackupError> {
    let mut reader = Reader::open(from)?;
    reader.header()?;
    let mut filling = Filling::begin(url).await?;
    let mut found = Vec::new();
    let mut table = None;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some((line, length)) = reader.next()? {
        match line {
            Line::Table { name, columns } => {
                let known = crate::store::copy::table(&name);
                let known = known.ok_or_else(|| BackupError::Table { path: from.to_owned(), table: name })?;
                table = Some((known, columns));
            }
            Line::Row(row) => {
                rows.push(row);
                bytes += length;
                if rows.len() >= ROWS || bytes >= ROWS_BYTES {
                    if let Some((table, columns)) = &table {
                        filling.add(table, columns, std::mem::take(&mut rows)).await?;
                    }
                    bytes = 0;
                }
            }
            Line::End { .. } => {
                if let Some((table, columns)) = &table {
                    filling.add(table, columns, std::mem::take(&mut rows)).await?;
                }
                bytes = 0;
            }
            Line::Key(key) => found.push(key),
            Line::Header(_) | Line::Digest { .. } => {}
        }
    }
    let counts = filling.finish(restored).await?.verify(url).await?;
    Ok((counts.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect(), found))
}

fn write_key(path: &Path, text: &str) -> Result<(), BackupError> {
    use std::io::Write as _;
    let write = |source| BackupError::Write { path: path.to_owned(), source };
    let mode = if path.to_string_lossy().ends_with(".pub.pem") { 0o644 } else { 0o600 };
    if let Some(dir) = path.parent() {
        make(dir)?;
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(write)?;
    file.write_all(text.as_bytes()).map_err(write)?;
    // Whatever mask the process has.
    file.set_permissions(fs::Permissions::from_mode(mode)).and_then(|()| file.sync_all()).map_err(write)
}

/// Bring the content of a SQLite store, whose backend is stopped, into the configured one,
/// which is empty.
///
/// # Errors
/// What kept it from being done; nothing is there then.
pub async fn import(config: &Config, from: &Path, now_ms: u64) -> Result<Summary, BackupError> {
    if !from.is_file() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(BackupError::Read { path: from.to_owned(), source });
    }
    // Held until the end, so that no backend begins meanwhile.
    let _held =
        from.parent().map(|dir| hold(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })).transpose()?;
    let url = config.database();
    make(&config.data_dir)?;
    // By way of a backup without keys, which is gone afterwards.
    let way = config.data_dir.join("importing.part");
    let write = |source| BackupError::Write { path: way.clone(), source };
    let handle = File::options().write(true).create(true).truncate(true).mode(0o600).open(&way).map_err(write)?;
    let done = carry(&StoreUrl::Sqlite(from.to_owned()), &way, handle, &url, now_ms).await;
    let gone = fs::remove_file(&way).map_err(write);
    let mut summary = done?;
    gone?;
    note(&url, "store.import", from, "every table was read again and compared".to_owned(), now_ms).await?;
    summary.at_ms = now_ms;
    Ok(summary)
}

async fn carry(from: &StoreUrl, way: &Path, handle: File, to: &StoreUrl, now_ms: u64) -> Result<Summary, BackupError> {
    fill(from, &[], Writer::new(handle, way.to_owned()), now_ms).await?;
    let (tables, _) = bring(way, to, None).await?;
    Ok(Summary { tables, ..Summary::default() })
}

async fn note(url: &StoreUrl, action: &str, from: &Path, detail: String, at_ms: u64) -> Result<(), BackupError> {
    let store = Store::open(url).await?;
    let (actor, decision) = ("console".to_owned(), Decision::Allowed);
    store
        .audit(AuditEntry {
            at_ms,
            actor,
            action: action.to_owned(),
            subject: from.display().to_string(),
            decision,
            detail,
        })
        .await;
    store.close().await;
    Ok(())
}

/// Say that a backend works on this data directory, until the file is dropped.
///
/// # Errors
/// [`BackupError::Runs`] where another says so.
pub fn hold(data_dir: &Path) -> Result<File, BackupError> {
    let path = data_dir.join("lock");
    let write = |source| BackupError::Write { path: path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(write)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(BackupError::Runs { path: data_dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(write(source)),
    }
}
