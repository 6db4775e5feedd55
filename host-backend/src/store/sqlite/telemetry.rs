//! Samples: raw for a while, and as hourly sums that each insert adds to, so that no
//! roll-up ever reads the raw ones again.

use sqlx::SqliteConnection;
use viworks_protocol::id::AgentId;
use viworks_protocol::telemetry::Sample;

use super::rows;
use super::{Readers, int, json};
use crate::store::StoreError;
use crate::store::model::{Page, PageOf, Resolution, StoredSample};

const HOUR_MS: u64 = 3_600_000;

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    samples: &[(&AgentId, u64, &Sample)],
) -> Result<(), StoreError> {
    let list: Vec<_> = samples.iter().map(|(agent, at, s)| (agent, at, at - at % HOUR_MS, s)).collect();
    let list = json(&list)?;
    let fresh = sqlx::query(
        "INSERT INTO telemetry (agent, at_ms, sample)
         SELECT value ->> 0, value ->> 1, value -> 3 FROM json_each(?1) WHERE true
         ON CONFLICT (agent, at_ms) DO NOTHING",
    )
    .bind(&list)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if fresh.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO telemetry_hours (agent, hour_ms, samples, latest, cpu_percent, load_one, load_five, load_fifteen,
             memory_used_mib, swap_used_mib, disk_used_percent)
         SELECT value ->> 0, value ->> 2, 1, value -> 3, value ->> '$[3].cpu_percent', value ->> '$[3].load_one',
             value ->> '$[3].load_five', value ->> '$[3].load_fifteen', value ->> '$[3].memory_used_mib',
             value ->> '$[3].swap_used_mib', value ->> '$[3].disk_used_percent'
         FROM json_each(?1) WHERE true
         ON CONFLICT (agent, hour_ms) DO UPDATE SET samples = samples + 1, latest = excluded.latest,
             cpu_percent = cpu_percent + excluded.cpu_percent, load_one = load_one + excluded.load_one,
             load_five = load_five + excluded.load_five, load_fifteen = load_fifteen + excluded.load_fifteen,
             memory_used_mib = memory_used_mib + excluded.memory_used_mib,
             swap_used_mib = swap_used_mib + excluded.swap_used_mib,
             disk_used_percent = disk_used_percent + excluded.disk_used_percent",
    )
    .bind(&list)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

impl Readers {
    pub(in crate::store) async fn telemetry(
        &self,
        agent: &AgentId,
        since_ms: u64,
        resolution: Resolution,
        page: &PageOf,
    ) -> Result<Page<StoredSample>, StoreError> {
        let sql = match resolution {
            Resolution::Raw => {
                "SELECT at_ms, 1 AS samples, sample FROM telemetry
                 WHERE agent = ?1 AND at_ms >= ?2 AND at_ms > ?3 ORDER BY at_ms LIMIT ?4"
            }
            Resolution::Hour => {
                "SELECT hour_ms AS at_ms, latest AS sample, * FROM telemetry_hours
                 WHERE agent = ?1 AND hour_ms >= ?2 AND hour_ms > ?3 ORDER BY hour_ms LIMIT ?4"
            }
        };
        let found = sqlx::query(sql)
            .bind(agent.as_str())
            .bind(int(since_ms))
            .bind(rows::number_cursor(page)?.unwrap_or(-1))
            .bind(rows::limit(page))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        rows::page(&found, page, |row| rows::sample(row, resolution), |sample| sample.at_ms.to_string())
    }
}
