//! Samples: raw for a while, and as hourly sums that each insert adds to, so that no
//! roll-up ever reads the raw ones again.

use sqlx::PgConnection;
use viworks_protocol::id::AgentId;
use viworks_protocol::telemetry::Sample;

use super::rows;
use super::{Readers, failed, int, json, list};
use crate::store::StoreError;
use crate::store::model::{Page, PageOf, Resolution, StoredSample};

const HOUR_MS: u64 = 3_600_000;

pub(super) async fn insert(conn: &mut PgConnection, samples: &[(&AgentId, u64, &Sample)]) -> Result<(), StoreError> {
    let rows: Vec<_> = samples.iter().map(|(agent, at, s)| (agent, at, at - at % HOUR_MS, s)).collect();
    sqlx::query(
        "WITH came AS (
             INSERT INTO telemetry (agent, at_ms, sample)
             SELECT j.value ->> 0, (j.value ->> 1)::bigint, j.value ->> 3
             FROM jsonb_array_elements($1::jsonb) AS j (value)
             ON CONFLICT (agent, at_ms) DO NOTHING
             RETURNING agent, at_ms, at_ms - at_ms % $2 AS hour_ms, sample, sample::jsonb AS s)
         INSERT INTO telemetry_hours (agent, hour_ms, samples, latest, cpu_percent, load_one, load_five, load_fifteen,
             memory_used_mib, swap_used_mib, disk_used_percent)
         SELECT agent, hour_ms, count(*), (array_agg(sample ORDER BY at_ms DESC))[1],
             sum((s ->> 'cpu_percent')::float8), sum((s ->> 'load_one')::float8), sum((s ->> 'load_five')::float8),
             sum((s ->> 'load_fifteen')::float8), sum((s ->> 'memory_used_mib')::float8),
             sum((s ->> 'swap_used_mib')::float8), sum((s ->> 'disk_used_percent')::float8)
         FROM came GROUP BY agent, hour_ms ORDER BY agent, hour_ms
         ON CONFLICT (agent, hour_ms) DO UPDATE SET samples = telemetry_hours.samples + excluded.samples,
             latest = excluded.latest, cpu_percent = telemetry_hours.cpu_percent + excluded.cpu_percent,
             load_one = telemetry_hours.load_one + excluded.load_one,
             load_five = telemetry_hours.load_five + excluded.load_five,
             load_fifteen = telemetry_hours.load_fifteen + excluded.load_fifteen,
             memory_used_mib = telemetry_hours.memory_used_mib + excluded.memory_used_mib,
             swap_used_mib = telemetry_hours.swap_used_mib + excluded.swap_used_mib,
             disk_used_percent = telemetry_hours.disk_used_percent + excluded.disk_used_percent",
    )
    .bind(list(json(&rows)?))
    .bind(int(HOUR_MS))
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
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
                "SELECT at_ms, 1::bigint AS samples, sample FROM telemetry
                 WHERE agent = $1 AND at_ms >= $2 AND at_ms > $3 ORDER BY at_ms LIMIT $4"
            }
            Resolution::Hour => {
                "SELECT hour_ms AS at_ms, latest AS sample, samples, cpu_percent, load_one, load_five, load_fifteen,
                     memory_used_mib, swap_used_mib, disk_used_percent FROM telemetry_hours
                 WHERE agent = $1 AND hour_ms >= $2 AND hour_ms > $3 ORDER BY hour_ms LIMIT $4"
            }
        };
        let found = sqlx::query(sql)
            .bind(agent.as_str())
            .bind(int(since_ms))
            .bind(rows::number_cursor(page)?.unwrap_or(-1))
            .bind(rows::limit(page))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows::page(&found, page, |row| rows::sample(row, resolution), |sample| sample.at_ms.to_string())
    }
}
