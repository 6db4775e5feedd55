//! Whole stores, row by row: out of one snapshot and into an empty database of either
//! engine. Every table that lasts is listed here with its columns; a test holds the list
//! against both engines. Refuses a database that knows more than this, and a target that
//! holds anything.

#[cfg(test)]
mod tests;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

use super::url::StoreUrl;
use super::{Store, StoreError, postgres, sqlite};

/// How a column's values are written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Real,
    Text,
    /// A text that is JSON itself.
    Json,
    /// As lowercase hex.
    Bytes,
}

use Kind::{Bytes, Int, Json, Real, Text};

#[derive(Debug)]
pub(crate) struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    /// A column whose numbers the engine itself gives out.
    pub counted: Option<&'static str>,
}

/// Rows that a backend makes anew at its start: not copied.
#[cfg(test)]
pub(crate) const PASSING: &[&str] = &[
    "probe",
    "instances",
    "leases",
    "agent_sessions",
    "instance_keys",
    "instance_group",
    "stamps",
    "schema_floor",
    "_sqlx_migrations",
];

macro_rules! counted {
    () => {
        None
    };
    ($column:ident) => {
        Some(stringify!($column))
    };
}

macro_rules! tables {
    ($($name:ident($($counted:ident)?) { $($column:ident: $kind:ident),* $(,)? })*) => {
        &[$(Table {
            name: stringify!($name),
            columns: &[$((stringify!($column), $kind)),*],
            counted: counted!($($counted)?),
        }),*]
    };
}

/// Those that others refer to come first.
pub(crate) const TABLES: &[Table] = tables! {
    agents() {
        id: Text, online: Int, stale: Int, site: Text, labels: Text, version: Text, boot: Text,
        max_concurrency: Int, first_seen_ms: Int, last_seen_ms: Int, receipt_key: Text, instance: Text,
        session: Text, session_ms: Int,
    }
    agent_labels() { key: Text, value: Text, agent: Text }
    agent_plugins() { agent: Text, plugin: Text, version: Text, digest: Text, state: Text, detail: Text }
    commands(n) {
        n: Int, id: Text, verb: Text, plugin: Text, digest: Text, mode: Text, args: Json, caller: Text,
        idempotency_key: Text, request_sha256: Text, state: Text, created_ms: Int, expires_ms: Int, due_ms: Int,
        finished_ms: Int, timeout_secs: Int, batch: Int, targets: Int, targets_root: Text, cancel_requested: Int,
        last_seq: Int, queued: Int, sent: Int, running: Int, succeeded: Int, failed: Int, denied: Int,
        cancelled: Int, expired: Int, unknown: Int, plans: Text, undo_of: Text, undone_by: Text,
        approvals_needed: Int, approvals: Json, also: Text,
    }
    invocations() {
        command: Int, ordinal: Int, id: Text, agent: Text, state: Text, seq: Int, report: Json, sent_ms: Int,
        started_ms: Int, finished_ms: Int, plan: Text,
    }
    approvers() { key_id: Text, operator: Text, pem: Text, created_ms: Int, created_by: Text }
    receipt_keys() { agent: Text, key_id: Text, pem: Text, first_ms: Int }
    receipts() {
        agent: Text, chain: Text, seq: Int, sha256: Text, prev: Text, boot: Text, command: Text, invocation: Text,
        at_ms: Int, fault: Text, walked: Int, anchored: Int, envelope: Json,
    }
    receipt_heads() {
        agent: Text, chain: Text, boot: Text, seq: Int, sha256: Text, held: Int, anchored_seq: Int, changed_ms: Int,
    }
    anchors() { seq: Int, sha256: Text, at_ms: Int, heads: Int, envelope: Json }
    plugins() {
        digest: Text, plugin: Text, version: Text, epoch: Int, sequence: Int, release: Json, component_size: Int,
        statements_size: Int, published_ms: Int, published_by: Text, standing: Text, wanted: Text,
        activated_ms: Int, note: Text,
    }
    plugin_parts() { digest: Text, part: Text, bytes: Bytes }
    rollouts(n) {
        n: Int, id: Text, plugin: Text, digest: Text, former: Text, spec: Json, state: Text, stage: Int,
        soaking_ms: Int, everyone: Int, reason: Text, created_ms: Int, created_by: Text, changed_ms: Int,
        finished_ms: Int,
    }
    rollout_members() { rollout: Int, agent: Text, stage: Int }
    tallies() { digest: Text, name: Text, tally: Json }
    mirror() { name: Text, bytes: Bytes }
    telemetry() { agent: Text, at_ms: Int, sample: Json }
    telemetry_hours() {
        agent: Text, hour_ms: Int, samples: Int, latest: Json, cpu_percent: Real, load_one: Real, load_five: Real,
        load_fifteen: Real, memory_used_mib: Real, swap_used_mib: Real, disk_used_percent: Real,
    }
    tokens() { name: Text, role: Text, sha256: Bytes, created_ms: Int, expires_ms: Int }
    audit(seq) { seq: Int, at_ms: Int, actor: Text, action: Text, subject: Text, decision: Text, detail: Text }
    restores() { at_ms: Int, backup_ms: Int }
};

/// The table of this name.
pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

impl Table {
    fn kind(&self, column: &str) -> Option<Kind> {
        self.columns.iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind)
    }

    /// These columns with their kinds; `None` where one is not known here.
    pub(crate) fn known(&self, columns: &[String]) -> Option<Vec<(&'static str, Kind)>> {
        let known = |name: &String| self.columns.iter().find(|(known, _)| known == name).copied();
        columns.iter().map(known).collect()
    }
}

/// How many rows, and a sum over them that does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub rows: u64,
    sum: u128,
}

impl Tally {
    pub(crate) fn add(&mut self, row: &[Value]) {
        let text = serde_json::to_vec(row).unwrap_or_default();
        let mut first = [0; 16];
        first.copy_from_slice(&Sha256::digest(&text)[..16]);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
    }
}

/// One state of a whole store, as it was when this was opened, whoever writes meanwhile.
#[derive(Debug)]
pub(crate) enum Snapshot {
    Sqlite(sqlite::copy::Snapshot),
    Postgres(postgres::copy::Snapshot),
}

impl Snapshot {
    /// Changes nothing.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        Ok(match url {
            StoreUrl::Sqlite(file) => Self::Sqlite(sqlite::copy::Snapshot::open(file).await?),
            StoreUrl::Postgres(options) => Self::Postgres(postgres::copy::Snapshot::open(options).await?),
        })
    }

    /// The columns that the table has there; empty where it has no such table.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] for a column that is not known here.
    pub(crate) async fn columns(&mut self, table: &Table) -> Result<Vec<String>, StoreError> {
        let there = match self {
            Self::Sqlite(snapshot) => snapshot.columns(table.name).await?,
            Self::Postgres(snapshot) => snapshot.columns(table.name).await?,
        };
        match there.iter().find(|column| table.kind(column).is_none()) {
            Some(column) => Err(StoreError::Foreign(format!("{}.{column}", table.name))),
            None => Ok(there),
        }
    }

    /// Every row to `each`, which may end it.
    ///
    /// # Errors
    /// Its own, and those of `each`.
    pub(crate) async fn rows<E: From<StoreError>>(
        &mut self,
        table: &Table,
        columns: &[String],
        each: impl FnMut(Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        let columns = table.known(columns).ok_or_else(|| StoreError::Foreign(table.name.to_owned()))?;
        match self {
            Self::Sqlite(snapshot) => snapshot.rows(table.name, &columns, each).await,
            Self::Postgres(snapshot) => snapshot.rows(table.name, &columns, each).await,
        }
    }
}

/// Rows on their way into an empty store; nothing of them is there before [`Self::finish`].
#[derive(Debug)]
pub(crate) struct Filling {
    into: Into,
    tallies: BTreeMap<&'static str, (Vec<String>, Tally)>,
}

#[derive(Debug)]
enum Into {
    Sqlite(sqlite::copy::Filling),
    Postgres(postgres::copy::Filling),
}

impl Filling {
    /// Make the store where there is none.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] where it holds anything.
    pub(crate) async fn begin(url: &StoreUrl) -> Result<Self, StoreError> {
        // Brings it to this version's form.
        Store::open(url).await?.close().await;
        let mut snapshot = Snapshot::open(url).await?;
        for table in TABLES {
            let (columns, mut rows) = (snapshot.columns(table).await?, 0_u64);
            let counted = snapshot.rows(table, &columns, |_| {
                rows += 1;
                Err(StoreError::NotEmpty(table.name))
            });
            counted.await?;
        }
        drop(snapshot);
        let into = match url {
            StoreUrl::Sqlite(file) => Into::Sqlite(sqlite::copy::Filling::begin(file).await?),
            StoreUrl::Postgres(options) => Into::Postgres(postgres::copy::Filling::begin(options).await?),
        };
        Ok(Self { into, tallies: BTreeMap::new() })
    }

    /// Some rows of a table, always with the same columns.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] for a column that is not known here.
    pub(crate) async fn add(
        &mut self,
        table: &'static Table,
        columns: &[String],
        mut rows: Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        let known = table.known(columns).ok_or_else(|| StoreError::Foreign(table.name.to_owned()))?;
        // Who was connected then is not now.
        if let Some(online) = columns.iter().position(|name| table.name == "agents" && name == "online") {
            rows.iter_mut().filter_map(|row| row.get_mut(online)).for_each(|value| *value = 0.into());
        }
        if let Into::Postgres(_) = &self.into {
            rows.iter_mut().for_each(|row| postgres::copy::storable(row, &known));
        }
        let (_, tally) = self.tallies.entry(table.name).or_insert_with(|| (columns.to_vec(), Tally::default()));
        rows.iter().for_each(|row| tally.add(row));
        match &mut self.into {
            Into::Sqlite(filling) => filling.add(table.name, &known, &rows).await,
            Into::Postgres(filling) => filling.add(table.name, &known, &rows).await,
        }
    }

    /// Commit. `restored`: the rows are a backup of that time, and the store is older than
    /// what agents have done since; without, it is as new as they are.
    ///
    /// # Errors
    /// When the commit fails: nothing is there then.
    pub(crate) async fn finish(mut self, restored: Option<Restored>) -> Result<Filled, StoreError> {
        if let Some(restored) = restored {
            let columns = || vec!["at_ms".to_owned(), "backup_ms".to_owned()];
            let of = self.tallies.entry("restores").or_insert_with(|| (columns(), Tally::default()));
            of.1.add(&[restored.at_ms.into(), restored.backup_ms.into()]);
        }
        match self.into {
            Into::Sqlite(filling) => filling.finish(restored).await?,
            Into::Postgres(filling) => filling.finish(restored).await?,
        }
        Ok(Filled { tallies: self.tallies })
    }
}

/// Put everything of a SQLite store, which nobody has open, into its one file, so that it
/// can be moved.
///
/// # Errors
/// When it can't be done: the file is not whole then.
pub(crate) async fn gather_into_one(file: &std::path::Path) -> Result<(), StoreError> {
    sqlite::copy::gather_into_one(file).await
}

/// When a backup was made, and when it became the store again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restored {
    pub at_ms: u64,
    pub backup_ms: u64,
}

/// What should be in the store now.
#[derive(Debug)]
pub(crate) struct Filled {
    tallies: BTreeMap<&'static str, (Vec<String>, Tally)>,
}

impl Filled {
    /// Read all of it again; answers the rows of each table.
    ///
    /// # Errors
    /// [`StoreError::Differs`] for a table that is not what was put into it.
    pub(crate) async fn verify(&self, url: &StoreUrl) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut snapshot = Snapshot::open(url).await?;
        let mut counts = Vec::new();
        for table in TABLES {
            let Some((columns, wanted)) = self.tallies.get(table.name) else { continue };
            let mut found = Tally::default();
            snapshot
                .rows(table, columns, |row| {
                    found.add(&row);
                    Ok::<(), StoreError>(())
                })
                .await?;
            if found != *wanted {
                return Err(StoreError::Differs { table: table.name, wanted: wanted.rows, found: found.rows });
            }
            counts.push((table.name, found.rows));
        }
        Ok(counts)
    }
}
