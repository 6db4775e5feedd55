//! The journal's tables and every statement on them. Called on the journal's thread alone.

use std::cell::Cell;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::receipt::{Head, Receipt};

use super::{Admission, JournalError, Owed};

/// What each version adds to the one before. `owed` is the place in the outbox, null once
/// acknowledged; `report` is null while the invocation runs; `draft` is its receipt as far
/// as it is known before. An effect's `state` is 0 intended, 1 applied, 2 failed. `chain` is
/// the receipts' head.
const VERSIONS: [&str; 2] = [
    "
    CREATE TABLE invocation (
        id TEXT PRIMARY KEY,
        forget_after_ms INTEGER NOT NULL,
        report TEXT,
        owed INTEGER
    ) STRICT;
    CREATE INDEX invocation_owed ON invocation (owed) WHERE owed IS NOT NULL;
    CREATE INDEX invocation_forget ON invocation (forget_after_ms) WHERE report IS NOT NULL AND owed IS NULL;
    CREATE INDEX invocation_running ON invocation (id) WHERE report IS NULL;
    CREATE TABLE effect (
        invocation TEXT NOT NULL,
        seq INTEGER NOT NULL,
        kind TEXT NOT NULL,
        summary TEXT NOT NULL,
        effect TEXT NOT NULL,
        state INTEGER NOT NULL,
        inverse TEXT,
        PRIMARY KEY (invocation, seq)
    ) STRICT, WITHOUT ROWID;
    ",
    "
    ALTER TABLE invocation ADD COLUMN draft TEXT;
    CREATE TABLE chain (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seq INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    ) STRICT;
    ",
];

/// The journal never grows past this many pages of 4 KiB (1 GiB): then it is full.
const MAX_PAGES: u32 = 256 * 1_024;

/// A page of the outbox ends after the report that takes it past this many bytes.
const PAGE_BYTES: usize = 1024 * 1024;

/// Number, kind, summary, value and state of an effect.
pub(super) type EffectRow = (u32, String, String, String, u8);

pub(super) struct Store {
    pub(super) db: Connection,
    next_place: Cell<i64>,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        // SQLite gives its side files the mode of the main one.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| JournalError::Open(e.to_string()))?;
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_millis(500))?;
        // Exclusive: one gateway to a journal, and no shared-memory file.
        db.execute_batch(&format!(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 8388608;
             PRAGMA max_page_count = {MAX_PAGES};"
        ))?;
        // Takes the exclusive lock now rather than at the first write.
        db.execute_batch("BEGIN IMMEDIATE; COMMIT;")?;
        let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let missing = VERSIONS.get(found as usize..).ok_or(JournalError::Version(found))?;
        if !missing.is_empty() {
            let (steps, newest) = (missing.concat(), VERSIONS.len());
            db.execute_batch(&format!("BEGIN; {steps} PRAGMA user_version = {newest}; COMMIT;"))?;
        }
        db.execute_batch(super::plans::SCHEMA)?;
        db.execute_batch(super::undo::SCHEMA)?;
        let last: i64 = db.query_row("SELECT coalesce(max(owed), 0) FROM invocation", [], |row| row.get(0))?;
        Ok(Self { db, next_place: Cell::new(last + 1) })
    }

    pub(super) fn transaction(&self, work: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let transaction = self.db.unchecked_transaction()?;
        work()?;
        transaction.commit()
    }

    /// What is known of an invocation, if it is.
    pub(super) fn known(&self, id: &InvocationId) -> rusqlite::Result<Option<Admission>> {
        let known: Option<Option<String>> = self
            .db
            .prepare_cached("SELECT report FROM invocation WHERE id = ?1")?
            .query_row([id.as_str()], |row| row.get(0))
            .optional()?;
        Ok(known.map(|report| match report {
            Some(json) => Admission::Ended(Box::new(read_report(&json))),
            None => Admission::Running,
        }))
    }

    pub(super) fn admit(&self, id: &InvocationId, forget_after_ms: u64, draft: Option<&str>) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO invocation (id, forget_after_ms, draft) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![id.as_str(), sql(forget_after_ms), draft])
            .map(drop)
    }

    pub(super) fn knows(&self, id: &InvocationId) -> rusqlite::Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM invocation WHERE id = ?1")?.exists([id.as_str()])
    }

    pub(super) fn intent(
        &self,
        id: &InvocationId,
        seq: u32,
        kind: &str,
        summary: &str,
        effect: &str,
    ) -> rusqlite::Result<()> {
        // An intent of an invocation that is not entered, or has ended, would be found by
        // no recovery.
        let entered = self
            .db
            .prepare_cached(
                "INSERT INTO effect (invocation, seq, kind, summary, effect, state)
                 SELECT ?1, ?2, ?3, ?4, ?5, 0
                 WHERE EXISTS (SELECT 1 FROM invocation WHERE id = ?1 AND report IS NULL)",
            )?
            .execute(params![id.as_str(), seq, kind, summary, effect])?;
        if entered == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(entered)) }
    }

    pub(super) fn effect_result(&self, id: &InvocationId, seq: u32, inverse: Option<&str>) -> rusqlite::Result<()> {
        let state = if inverse.is_some() { 1 } else { 2 };
        let changed = self
            .db
            .prepare_cached(
                "UPDATE effect SET state = ?3, inverse = ?4 WHERE invocation = ?1 AND seq = ?2 AND state = 0",
            )?
            .execute(params![id.as_str(), seq, state, inverse])?;
        if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
    }

    /// The first report stands; whether this is it.
    pub(super) fn finish(&self, id: &InvocationId, report: &str, forget_after_ms: u64) -> rusqlite::Result<bool> {
        let place = self.next_place.replace(self.next_place.get() + 1);
        let changed = self
            .db
            .prepare_cached(
                "INSERT INTO invocation (id, forget_after_ms, report, owed) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET report = excluded.report, owed = excluded.owed, draft = NULL
                 WHERE invocation.report IS NULL",
            )?
            .execute(params![id.as_str(), sql(forget_after_ms), report, place])?;
        Ok(changed == 1)
    }

    /// The receipt of an invocation that runs, as far as it is known.
    pub(super) fn draft(&self, id: &InvocationId) -> rusqlite::Result<Option<Receipt>> {
        let draft: Option<String> = self
            .db
            .prepare_cached("SELECT draft FROM invocation WHERE id = ?1 AND report IS NULL AND draft IS NOT NULL")?
            .query_row([id.as_str()], |row| row.get(0))
            .optional()?;
        Ok(draft.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Where the chain of receipts ends.
    pub(super) fn head(&self) -> rusqlite::Result<Head> {
        let head = self
            .db
            .prepare_cached("SELECT seq, sha256 FROM chain")?
            .query_row([], |row| Ok(Head { seq: row.get::<_, i64>(0)?.unsigned_abs(), sha256: row.get(1)? }))
            .optional()?;
        Ok(head.unwrap_or_default())
    }

    pub(super) fn set_head(&self, head: &Head) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO chain (id, seq, sha256) VALUES (1, ?1, ?2)")?
            .execute(params![sql(head.seq), head.sha256])
            .map(drop)
    }

    /// Write something that changes nothing.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        self.db.pragma_update(None, "user_version", VERSIONS.len() as u32)
    }

    /// Rows changed since the file was opened: whether a commit has anything to write.
    pub(super) fn changes(&self) -> u64 {
        self.db.total_changes()
    }

    pub(super) fn is_owed(&self, id: &InvocationId) -> rusqlite::Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM invocation WHERE id = ?1 AND owed IS NOT NULL")?.exists([id.as_str()])
    }

    pub(super) fn outbox(&self, after: u64, limit: u32) -> rusqlite::Result<Vec<Owed>> {
        let mut statement = self.db.prepare_cached(
            "SELECT owed, id, report FROM invocation WHERE owed > ?1 AND owed IS NOT NULL ORDER BY owed LIMIT ?2",
        )?;
        let mut rows = statement.query(params![sql(after), limit])?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let json: String = row.get(2)?;
            bytes += json.len();
            if let Ok(invocation) = row.get::<_, String>(1)?.parse() {
                page.push(Owed { place: row.get::<_, i64>(0)?.unsigned_abs(), invocation, report: read_report(&json) });
            }
            if bytes > PAGE_BYTES {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn acknowledge(&self, id: &InvocationId) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("UPDATE invocation SET owed = NULL WHERE id = ?1 AND owed IS NOT NULL")?
            .execute([id.as_str()])
            .map(drop)
    }

    pub(super) fn forget(&self, now_ms: u64, limit: u32) -> rusqlite::Result<u32> {
        let ids: Vec<String> = self
            .db
            .prepare_cached(
                "SELECT id FROM invocation
                 WHERE report IS NOT NULL AND owed IS NULL AND forget_after_ms < ?1 LIMIT ?2",
            )?
            .query_map(params![sql(now_ms), limit], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in &ids {
            self.db.prepare_cached("DELETE FROM effect WHERE invocation = ?1")?.execute([id])?;
            self.db.prepare_cached("DELETE FROM invocation WHERE id = ?1")?.execute([id])?;
        }
        Ok(u32::try_from(ids.len()).unwrap_or(limit))
    }

    pub(super) fn owed(&self) -> rusqlite::Result<u32> {
        self.db
            .prepare_cached("SELECT count(*) FROM invocation WHERE owed IS NOT NULL")?
            .query_row([], |row| row.get(0))
    }

    /// One invocation that has no report.
    pub(super) fn unfinished(&self) -> rusqlite::Result<Option<String>> {
        self.db
            .prepare_cached("SELECT id FROM invocation WHERE report IS NULL LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()
    }

    /// The effects of an invocation, in order.
    pub(super) fn effects(&self, id: &str) -> rusqlite::Result<Vec<EffectRow>> {
        self.db
            .prepare_cached("SELECT seq, kind, summary, effect, state FROM effect WHERE invocation = ?1 ORDER BY seq")?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
            .collect()
    }

    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) -> rusqlite::Result<()> {
        self.db.execute_batch(&format!("PRAGMA max_page_count = {pages};"))
    }
}

/// SQLite's integers are signed.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What can't be read any more is still owed: as an outcome that nobody knows.
fn read_report(json: &str) -> Report {
    serde_json::from_str(json)
        .unwrap_or_else(|e| Report::refused(Outcome::Unknown, "failed", format!("the journaled report: {e}"), 0))
}
