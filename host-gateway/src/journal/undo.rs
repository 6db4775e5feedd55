//! What finished commands did here, for undo: their effects, each of which knows its
//! inverse, for a time after the end. Bounded in size; the oldest go first.

use rusqlite::{OptionalExtension as _, params};
use viworks_protocol::id::CommandId;

use super::store::Store;
use super::{Journal, JournalError};
use crate::effects::Effect;

/// A command with more than this can't be undone; its effects stay in its report.
const MAX_ROW: usize = 1024 * 1024;
/// All of them together.
const MAX_BYTES: i64 = 128 * 1024 * 1024;
/// Rows that go in one transaction.
const FORGET_AT_ONCE: u32 = 500;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS undo (
        command TEXT PRIMARY KEY,
        effects TEXT NOT NULL,
        until_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS undo_until ON undo (until_ms, length(effects));";

impl Journal {
    /// Keep what a command did, in order, until then (Unix ms). Returns as soon as this is
    /// queued: the end of the invocation is committed after it.
    pub async fn keep_undo(&self, command: &CommandId, effects: &[&Effect], until_ms: u64) {
        let json = match serde_json::to_string(effects) {
            Ok(json) if json.len() <= MAX_ROW => json,
            _ => return tracing::warn!(%command, "the command did too much to be undone later"),
        };
        let command = command.clone();
        if let Err(error) = self.enter(move |store| store.keep_undo(&command, &json, until_ms)).await {
            tracing::warn!(%error, "what a command did was not kept for undo");
        }
    }

    /// What a command did here, in order; `None` if that is not known (any more).
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn undoable(&self, command: &CommandId, now_ms: u64) -> Result<Option<Vec<Effect>>, JournalError> {
        let command = command.clone();
        self.run(move |store| store.undoable(&command, now_ms)).await
    }

    /// Forget what can't be undone any more, and the oldest of what is too much.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub async fn forget_undo(&self, now_ms: u64) -> Result<(), JournalError> {
        while self.run(move |store| store.forget_undo(now_ms)).await? >= FORGET_AT_ONCE as usize {}
        Ok(())
    }
}

impl Store {
    fn keep_undo(&self, command: &CommandId, json: &str, until_ms: u64) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO undo (command, effects, until_ms) VALUES (?1, ?2, ?3)")?
            .execute(params![command.as_str(), json, sql(until_ms)])
            .map(drop)
    }

    fn undoable(&self, command: &CommandId, now_ms: u64) -> rusqlite::Result<Option<Vec<Effect>>> {
        let found: Option<String> = self
            .db
            .prepare_cached("SELECT effects FROM undo WHERE command = ?1 AND until_ms > ?2")?
            .query_row(params![command.as_str(), sql(now_ms)], |row| row.get(0))
            .optional()?;
        // Effects of another version of this gateway that can't be read can't be undone.
        Ok(found.and_then(|json| serde_json::from_str(&json).ok()))
    }

    fn forget_undo(&self, now_ms: u64) -> rusqlite::Result<usize> {
        let expired = self
            .db
            .prepare_cached(
                "DELETE FROM undo WHERE command IN (SELECT command FROM undo WHERE until_ms <= ?1 LIMIT ?2)",
            )?
            .execute(params![sql(now_ms), FORGET_AT_ONCE])?;
        let bytes: i64 = self
            .db
            .prepare_cached("SELECT coalesce(sum(length(effects)), 0) FROM undo")?
            .query_row([], |row| row.get(0))?;
        if bytes <= MAX_BYTES {
            return Ok(expired);
        }
        self.db
            .prepare_cached("DELETE FROM undo WHERE command IN (SELECT command FROM undo ORDER BY until_ms LIMIT ?1)")?
            .execute([FORGET_AT_ONCE])
    }
}

/// SQLite's integers are signed.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::state::{Change, Expect};

    #[tokio::test]
    async fn effects_are_kept_by_command_for_their_time() {
        let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
        let Ok(journal) = Journal::open(dir.path()) else { panic!("no journal") };
        let (command, other) = (CommandId::new(1), CommandId::new(2));
        let effect = Effect::State(Change::Delete { plugin: "p".into(), key: "k".into(), expect: Expect::Nothing });
        journal.keep_undo(&command, &[&effect, &effect], 1_000).await;
        journal.keep_undo(&other, &[], 2_000).await;
        assert_eq!(journal.undoable(&command, 999).await, Ok(Some(vec![effect.clone(), effect])));
        assert_eq!(journal.undoable(&command, 1_000).await, Ok(None));
        assert_eq!(journal.undoable(&other, 999).await, Ok(Some(Vec::new())));
        assert_eq!(journal.forget_undo(1_000).await, Ok(()));
        assert_eq!(journal.undoable(&command, 0).await, Ok(None));
        assert_eq!(journal.undoable(&other, 0).await, Ok(Some(Vec::new())));
    }
}
