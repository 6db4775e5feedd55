//! Plans that this gateway made, by digest: what applying may be bound to. Bounded in
//! number, size and age. Refuses to give a plan of something else.

use rusqlite::{OptionalExtension as _, params};
use viworks_protocol::outcome::EffectReport;

use super::store::Store;
use super::{Journal, JournalError};
use crate::effects::PlanSubject;
use crate::runtime::unix_ms;

/// How long a plan can be applied.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// The newest are kept.
const MAX_PLANS: u32 = 500;
/// A larger one is reported and not kept: nothing can be bound to it.
const MAX_BYTES: usize = 256 * 1_024;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS plan (
        digest TEXT NOT NULL,
        subject TEXT NOT NULL,
        effects TEXT NOT NULL,
        made_ms INTEGER NOT NULL,
        PRIMARY KEY (digest, subject)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS plan_made ON plan (made_ms);";

impl Journal {
    /// Keep a plan. Returns as soon as this is queued: one that is lost in a crash has to
    /// be made again, and nothing else.
    pub async fn keep_plan(&self, digest: &str, subject: &PlanSubject, effects: &[EffectReport]) {
        let json = match serde_json::to_string(effects) {
            Ok(json) if json.len() <= MAX_BYTES => json,
            _ => return tracing::warn!(%digest, "a plan is too large to be kept"),
        };
        let (digest, subject, now) = (digest.to_owned(), subject.key(), unix_ms());
        if let Err(error) = self.enter(move |store| store.keep_plan(&digest, &subject, &json, now)).await {
            tracing::warn!(%error, "a plan was not kept");
        }
    }

    /// The newest plan of this subject that is among `digests`, made here within a day.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn plan_among(
        &self,
        digests: &[String],
        subject: &PlanSubject,
    ) -> Result<Option<Vec<EffectReport>>, JournalError> {
        let (digests, subject, now) = (digests.to_vec(), subject.key(), unix_ms());
        self.run(move |store| store.plan_among(&digests, &subject, now)).await
    }
}

impl Store {
    fn keep_plan(&self, digest: &str, subject: &str, json: &str, now_ms: u64) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO plan (digest, subject, effects, made_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (digest, subject) DO UPDATE SET made_ms = excluded.made_ms",
            )?
            .execute(params![digest, subject, json, sql(now_ms)])?;
        self.db
            .prepare_cached(
                "DELETE FROM plan WHERE made_ms < max(?1,
                     coalesce((SELECT made_ms FROM plan ORDER BY made_ms DESC LIMIT 1 OFFSET ?2), 0))",
            )?
            .execute(params![sql(now_ms.saturating_sub(KEPT_MS)), MAX_PLANS - 1])
            .map(drop)
    }

    fn plan_among(
        &self,
        digests: &[String],
        subject: &str,
        now_ms: u64,
    ) -> rusqlite::Result<Option<Vec<EffectReport>>> {
        let mut newest: Option<(i64, String)> = None;
        for digest in digests {
            let found = self
                .db
                .prepare_cached("SELECT made_ms, effects FROM plan WHERE digest = ?1 AND subject = ?2")?
                .query_row(params![digest, subject], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            newest = newest.max(found);
        }
        let oldest = sql(now_ms.saturating_sub(KEPT_MS));
        // One that can't be read any more is none.
        Ok(newest.filter(|(made, _)| *made >= oldest).and_then(|(_, json)| serde_json::from_str(&json).ok()))
    }
}

/// SQLite's integers are signed.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_protocol::outcome::EffectState;

    fn subject(verb: &str) -> PlanSubject {
        PlanSubject { plugin: "p".into(), verb: verb.into(), args_sha256: "a".into(), undo: None }
    }

    fn effects(summary: String) -> Vec<EffectReport> {
        let state = EffectState::Planned;
        vec![EffectReport { kind: "state.set".into(), summary, state, diff: Vec::new(), irreversible: false }]
    }

    #[tokio::test]
    async fn a_plan_is_found_by_digest_and_subject_until_newer_ones_push_it_out() {
        let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
        let Ok(journal) = Journal::open(dir.path()) else { panic!("no journal") };
        let first = effects("first".into());
        journal.keep_plan("d0", &subject("a"), &first).await;
        let among = |digests: &[&str]| digests.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
        let found = |digests: Vec<String>, verb: &'static str| {
            let journal = journal.clone();
            async move { journal.plan_among(&digests, &subject(verb)).await }
        };
        assert_eq!(found(among(&["x", "d0"]), "a").await, Ok(Some(first)));
        assert_eq!(found(among(&["d0"]), "b").await, Ok(None), "a plan of another verb");
        assert_eq!(found(among(&["d1"]), "a").await, Ok(None));
        assert_eq!(found(Vec::new(), "a").await, Ok(None));
        for n in 0..=MAX_PLANS {
            // Of different milliseconds, or none would be the oldest.
            tokio::time::sleep(std::time::Duration::from_millis(u64::from(n == 0) * 5)).await;
            journal.keep_plan(&format!("n{n}"), &subject("a"), &effects(n.to_string())).await;
        }
        assert_eq!(found(among(&["d0"]), "a").await, Ok(None), "bounded");
        assert!(matches!(found(among(&["n500"]), "a").await, Ok(Some(_))));
        journal.keep_plan("big", &subject("a"), &effects("x".repeat(MAX_BYTES))).await;
        assert_eq!(found(among(&["big"]), "a").await, Ok(None));
    }
}
