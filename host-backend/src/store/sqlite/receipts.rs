//! Receipts in their chains. They come with the commit that settles their invocations and
//! are followed soon after, many chains in a fixed number of statements: what is missing
//! or contradicts is found then, audited, and marked.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use viworks_protocol::id::AgentId;

use super::rows::{self, RowExt as _};
use super::{Readers, expiry, int, json, ledger};
use crate::store::StoreError;
use crate::store::chains::{self, Followed, Written};
use crate::store::model::{Page, PageOf};
use crate::store::receipt::{ChainEnd, ReceiptFilter, ReceiptKey, StoredAnchor, StoredReceipt, Walked};

/// Receipts that are followed in one commit.
const A_WALK: i64 = 2_000;

/// Statement over the JSON list `?N` of receipts.
macro_rules! insert_receipts {
    ($list:literal) => {
        concat!(
            "INSERT OR IGNORE INTO receipts (agent, chain, seq, sha256, prev, boot, command, invocation, at_ms, fault,
                 walked, envelope)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                 value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11 FROM json_each(",
            $list,
            ")"
        )
    };
}
pub(super) use insert_receipts;

/// Follow the chains on from where they were followed to.
pub(super) async fn walk(conn: &mut SqliteConnection, now_ms: u64) -> Result<Walked, StoreError> {
    let found = sqlx::query(
        "SELECT r.agent, r.chain, r.boot, r.seq, r.sha256, r.prev, h.seq AS head_seq, h.sha256 AS head_sha256, h.held,
             h.changed_ms AS head_ms
         FROM receipts AS r LEFT JOIN receipt_heads AS h ON h.agent = r.agent AND h.chain = r.chain
         WHERE r.walked = 0 ORDER BY r.agent, r.chain, r.seq LIMIT ?1",
    )
    .bind(A_WALK)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    if found.is_empty() {
        return Ok(Walked::default());
    }
    let restored_ms = expiry::restored_ms(conn).await?;
    let followed = chains::follow(&found, restored_ms, now_ms)?;
    let contradicted = contradicted(conn, &followed).await?;
    let written = followed.finish(contradicted)?;
    write(conn, &written, now_ms).await?;
    if !written.audits.is_empty() {
        ledger::audit(conn, &written.audits.iter().collect::<Vec<_>>()).await?;
    }
    Ok(written.out)
}

/// Of the late ones, those whose place another receipt has.
async fn contradicted(conn: &mut SqliteConnection, followed: &Followed) -> Result<Vec<usize>, StoreError> {
    if followed.late.is_empty() {
        return Ok(Vec::new());
    }
    let found = sqlx::query(
        "SELECT DISTINCT j.value ->> 0 AS place FROM json_each(?1) AS j CROSS JOIN receipts AS r
         ON r.agent = j.value ->> 1 AND r.chain = j.value ->> 2 AND r.seq = j.value ->> 3 AND r.sha256 <> j.value ->> 4",
    )
    .bind(followed.late_list()?)
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    found.iter().map(|row| Ok(usize::try_from(row.number("place")?).unwrap_or(usize::MAX))).collect()
}

async fn write(conn: &mut SqliteConnection, written: &Written, now_ms: u64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE receipts SET walked = 1, fault = coalesce(j.value ->> 4, fault) FROM json_each(?1) AS j
         WHERE receipts.agent = j.value ->> 0 AND receipts.chain = j.value ->> 1 AND receipts.seq = j.value ->> 2
             AND receipts.sha256 = j.value ->> 3",
    )
    .bind(&written.walked)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    sqlx::query(
        "INSERT INTO receipt_heads (agent, chain, boot, seq, sha256, held, changed_ms)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2
         FROM json_each(?1) WHERE true
         ON CONFLICT (agent, chain) DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256, held = excluded.held,
             changed_ms = excluded.changed_ms",
    )
    .bind(&written.heads)
    .bind(int(now_ms))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

/// Store an anchor, and that these ends are in it.
pub(super) async fn anchor(
    conn: &mut SqliteConnection,
    anchor: &StoredAnchor,
    ends: &[ChainEnd],
) -> Result<(), StoreError> {
    let list: Vec<_> = ends.iter().map(|e| (&e.agent, &e.chain, e.seq, &e.sha256)).collect();
    let list = json(&list)?;
    sqlx::query("INSERT INTO anchors (seq, sha256, at_ms, heads, envelope) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(int(anchor.seq))
        .bind(&anchor.sha256)
        .bind(int(anchor.at_ms))
        .bind(anchor.heads)
        .bind(&anchor.envelope)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    for sql in [
        "UPDATE receipt_heads SET anchored_seq = j.value ->> 2 FROM json_each(?1) AS j
         WHERE receipt_heads.agent = j.value ->> 0 AND receipt_heads.chain = j.value ->> 1",
        "UPDATE receipts SET anchored = 1 FROM json_each(?1) AS j
         WHERE receipts.agent = j.value ->> 0 AND receipts.chain = j.value ->> 1 AND receipts.seq = j.value ->> 2
             AND receipts.sha256 = j.value ->> 3",
    ] {
        sqlx::query(sql).bind(&list).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    }
    Ok(())
}

/// What is older goes, of a lasting chain only up to a place that an anchor confirms: what
/// is left begins where it can be checked.
pub(super) async fn prune(conn: &mut SqliteConnection, before_ms: u64, rows: i64) -> Result<u64, StoreError> {
    const HOUR_MS: u64 = 3_600_000;
    let receipts = sqlx::query(
        "DELETE FROM receipts WHERE (agent, chain, seq, sha256) IN
             (SELECT agent, chain, seq, sha256 FROM receipts WHERE at_ms < ?2 ORDER BY at_ms LIMIT ?3)
         AND (boot IS NOT NULL OR chain = '' OR seq <=
             (SELECT max(a.seq) FROM receipts AS a WHERE a.agent = receipts.agent AND a.chain = receipts.chain
                  AND a.anchored = 1 AND a.at_ms < ?1))",
    )
    .bind(int(before_ms))
    .bind(int(before_ms.saturating_sub(HOUR_MS)))
    .bind(rows)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    let heads = sqlx::query(
        "DELETE FROM receipt_heads WHERE (agent, chain) IN
             (SELECT agent, chain FROM receipt_heads WHERE boot IS NOT NULL AND changed_ms < ?1 LIMIT ?2)",
    )
    .bind(int(before_ms))
    .bind(rows)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(receipts.rows_affected() + heads.rows_affected())
}

impl Readers {
    pub(in crate::store) async fn receipts(
        &self,
        filter: &ReceiptFilter,
        page: &PageOf,
    ) -> Result<Page<StoredReceipt>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT agent, chain, boot, seq, sha256, command, invocation, at_ms, fault, envelope FROM receipts WHERE true",
        );
        if let Some(agent) = &filter.agent {
            query.push(" AND agent = ").push_bind(agent.as_str().to_owned());
        }
        if let Some(command) = &filter.command {
            query.push(" AND command = ").push_bind(command.as_str().to_owned());
        }
        if let Some(after) = &page.after {
            let (agent, chain, seq, sha256): (String, String, i64, String) =
                serde_json::from_str(after).map_err(|_| StoreError::Cursor(after.clone()))?;
            query.push(" AND (agent, chain, seq, sha256) > (").push_bind(agent).push(", ").push_bind(chain);
            query.push(", ").push_bind(seq).push(", ").push_bind(sha256).push(")");
        }
        query.push(" ORDER BY agent, chain, seq, sha256 LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::receipt, |r| {
            serde_json::to_string(&(&r.agent, &r.chain, r.seq, &r.sha256)).unwrap_or_default()
        })
    }

    pub(in crate::store) async fn receipt_keys(
        &self,
        agent: Option<&AgentId>,
        page: &PageOf,
    ) -> Result<Page<ReceiptKey>, StoreError> {
        let (after_agent, after_key) = match &page.after {
            Some(after) => after.split_once(' ').ok_or_else(|| StoreError::Cursor(after.clone()))?,
            None => ("", ""),
        };
        let found = sqlx::query(
            "SELECT k.agent, k.key_id, k.pem, k.first_ms, coalesce(a.receipt_key = k.key_id, 0) AS pinned FROM receipt_keys AS k
             LEFT JOIN agents AS a ON a.id = k.agent
             WHERE (k.agent, k.key_id) > (?1, ?2) AND (?3 IS NULL OR k.agent = ?3)
             ORDER BY k.agent, k.key_id LIMIT ?4",
        )
        .bind(after_agent)
        .bind(after_key)
        .bind(agent.map(AgentId::as_str))
        .bind(rows::limit(page))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let key = |row: &SqliteRow| {
            Ok(ReceiptKey {
                agent: row.parsed("agent")?,
                id: row.text("key_id")?,
                pem: row.text("pem")?,
                first_ms: row.number("first_ms")?,
                pinned: row.flag("pinned")?,
            })
        };
        rows::page(&found, page, key, |key| format!("{} {}", key.agent, key.id))
    }

    pub(in crate::store) async fn receipts_unwalked(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT EXISTS (SELECT 1 FROM receipts WHERE walked = 0) AS some")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.flag("some")
    }

    pub(in crate::store) async fn moved_chains(&self, limit: u32) -> Result<Vec<ChainEnd>, StoreError> {
        let found = sqlx::query(
            "SELECT agent, chain, seq, sha256 FROM receipt_heads WHERE boot IS NULL AND seq > anchored_seq
             ORDER BY agent LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(rows::chain_end).collect()
    }

    pub(in crate::store) async fn last_anchor(&self) -> Result<Option<StoredAnchor>, StoreError> {
        let row = sqlx::query("SELECT seq, sha256, at_ms, heads, envelope FROM anchors ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::anchor).transpose()
    }

    pub(in crate::store) async fn anchors(&self, page: &PageOf) -> Result<Page<StoredAnchor>, StoreError> {
        let found =
            sqlx::query("SELECT seq, sha256, at_ms, heads, envelope FROM anchors WHERE seq > ?1 ORDER BY seq LIMIT ?2")
                .bind(rows::number_cursor(page)?.unwrap_or(0))
                .bind(rows::limit(page))
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::anchor, |anchor| anchor.seq.to_string())
    }
}
