//! The SQLite file behind `state`: one table, one row a key, one fsync a change. Opened at
//! first use and held; an error of it is `unavailable`, never a loss that nobody hears of.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Bound, Expect};
use crate::failure::Failure;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS state (
        plugin TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (plugin, key)
    ) STRICT, WITHOUT ROWID;
";

#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    open: Mutex<Option<Connection>>,
}

/// How much a plugin keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

fn unavailable(error: rusqlite::Error) -> Failure {
    Failure::Unavailable(format!("plugin state: {error}"))
}

impl Store {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, open: Mutex::default() }
    }

    pub(super) fn get(&self, plugin: &str, key: &str) -> Result<Option<String>, Failure> {
        self.with(|db| value(db, plugin, key))
    }

    pub(super) fn keys(&self, plugin: &str) -> Result<Vec<String>, Failure> {
        self.with(|db| {
            let mut statement = db.prepare_cached("SELECT key FROM state WHERE plugin = ?1 ORDER BY key")?;
            statement.query_map([plugin], |row| row.get(0))?.collect()
        })
    }

    /// What the plugin keeps beside this key.
    pub(super) fn size_without(&self, plugin: &str, key: &str) -> Result<Size, Failure> {
        self.with(|db| size_without(db, plugin, key))
    }

    /// Each key with the bytes that it takes.
    pub(super) fn sizes(&self, plugin: &str) -> Result<Vec<(String, u64)>, Failure> {
        self.with(|db| {
            let mut statement =
                db.prepare_cached("SELECT key, octet_length(key) + octet_length(value) FROM state WHERE plugin = ?1")?;
            let rows = statement.query_map([plugin], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
            rows.collect()
        })
    }

    /// Put a value, or take it away, if what is there is as expected. Gives what was there.
    ///
    /// # Errors
    /// `conflict` if something else is there, or if others have filled the store since the
    /// gate looked; `unavailable` if it can't be made durable.
    pub(super) fn put(
        &self,
        plugin: &str,
        key: &str,
        after: Option<&str>,
        expect: &Expect,
        bound: Option<Bound>,
    ) -> Result<Option<String>, Failure> {
        let refused = self.with(|db| {
            let change = Transaction::new(db, TransactionBehavior::Immediate)?;
            let before = value(&change, plugin, key)?;
            if !expect.holds(before.as_deref()) {
                return Ok(Err("it has changed meanwhile"));
            }
            match after {
                Some(after) => {
                    let others = size_without(&change, plugin, key)?;
                    let bytes = others.bytes + (key.len() + after.len()) as u64;
                    if bound.is_some_and(|b| others.keys + 1 > b.keys.into() || bytes > b.bytes.into()) {
                        return Ok(Err("the plugin's state is full"));
                    }
                    change.execute(
                        "INSERT INTO state (plugin, key, value) VALUES (?1, ?2, ?3)
                         ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value",
                        params![plugin, key, after],
                    )?;
                }
                None => {
                    change.execute("DELETE FROM state WHERE plugin = ?1 AND key = ?2", params![plugin, key])?;
                }
            }
            change.commit()?;
            Ok(Ok(before))
        })?;
        refused.map_err(|why| Failure::Conflict(format!("state {key:?}: {why}")))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let db = match &mut *open {
            Some(db) => db,
            closed => closed.insert(self.connect()?),
        };
        work(db).map_err(unavailable)
    }

    fn connect(&self) -> Result<Connection, Failure> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Made here first, so that it, and the files SQLite puts beside it, are private.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.file)
            .map_err(|e| Failure::Unavailable(format!("plugin state {}: {e}", self.file.display())))?;
        let db = Connection::open(&self.file).map_err(unavailable)?;
        db.execute_batch(SCHEMA).map_err(unavailable)?;
        Ok(db)
    }
}

fn value(db: &Connection, plugin: &str, key: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = db.prepare_cached("SELECT value FROM state WHERE plugin = ?1 AND key = ?2")?;
    statement.query_row([plugin, key], |row| row.get(0)).optional()
}

fn size_without(db: &Connection, plugin: &str, key: &str) -> rusqlite::Result<Size> {
    let mut statement = db.prepare_cached(
        "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0)
         FROM state WHERE plugin = ?1 AND key <> ?2",
    )?;
    statement.query_row([plugin, key], |row| {
        let (keys, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Size { keys: keys.unsigned_abs(), bytes: bytes.unsigned_abs() })
    })
}
