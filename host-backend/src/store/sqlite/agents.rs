//! Agents: what they say of themselves, their presence, and the lists and selections of
//! them.

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::BTreeMap;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::AgentId;

use super::rows::{self, RowExt as _};
use super::{Readers, int, json};
use crate::store::gather::{Presence, presence_list};
use crate::store::model::{Agent, AgentFilter, Page, PageOf, Selector};
use crate::store::write::AgentHello;
use crate::store::{StoreError, lists};

const COLUMNS: &str = "SELECT a.id, a.online, a.stale, a.site, a.labels, a.version, a.boot, a.max_concurrency, a.first_seen_ms,
    a.last_seen_ms, a.instance, a.session, (SELECT json_group_array(json_object('plugin', p.plugin, 'version', p.version,
        'digest', p.digest, 'state', p.state, 'detail', p.detail)) FROM agent_plugins AS p WHERE p.agent = a.id)
    AS plugins,
    (SELECT json_object('key', k.key_id, 'since_ms', k.first_ms, 'last', coalesce(h.seq, 0),
        'missing', coalesce(h.seq - h.held, 0),
        'former_keys', (SELECT count(*) - 1 FROM receipt_keys AS f WHERE f.agent = a.id))
     FROM receipt_keys AS k LEFT JOIN receipt_heads AS h ON h.agent = k.agent AND h.chain = k.key_id
     WHERE k.agent = a.id AND k.key_id = a.receipt_key) AS receipts";

/// Register agents or renew what is known of them; labels and plugins are replaced.
pub(super) async fn hello(conn: &mut SqliteConnection, hellos: &[&AgentHello]) -> Result<(), StoreError> {
    let lists = lists::hellos(hellos)?;
    // WHERE true: without it SQLite takes ON for a join's.
    for (sql, list) in [
        (
            "INSERT INTO agents (id, online, site, labels, version, boot, max_concurrency, first_seen_ms, last_seen_ms)
             SELECT value ->> 0, 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                 value ->> 6
             FROM json_each(?1) WHERE true
             ON CONFLICT (id) DO UPDATE SET site = excluded.site, labels = excluded.labels,
                 version = excluded.version, boot = excluded.boot, max_concurrency = excluded.max_concurrency",
            &lists.agents,
        ),
        (
            // A session that began before the one that is known does not replace it.
            "UPDATE agents SET instance = j.value ->> 7, session = j.value ->> 8, session_ms = j.value ->> 6
             FROM json_each(?1) AS j WHERE agents.id = j.value ->> 0 AND agents.session_ms <= j.value ->> 6",
            &lists.agents,
        ),
        ("DELETE FROM agent_labels WHERE agent IN (SELECT value FROM json_each(?1))", &lists.ids),
        (
            "INSERT OR REPLACE INTO agent_labels (key, value, agent)
             SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?1) AS j",
            &lists.labels,
        ),
        ("DELETE FROM agent_plugins WHERE agent IN (SELECT value FROM json_each(?1))", &lists.ids),
        (STATUS, &lists.plugins),
        (CHANGED_KEYS, &lists.keys),
        (
            "INSERT OR IGNORE INTO receipt_keys (agent, key_id, pem, first_ms)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)",
            &lists.keys,
        ),
        (
            "UPDATE agents SET receipt_key = j.value ->> 1 FROM json_each(?1) AS j
             WHERE agents.id = j.value ->> 0 AND agents.receipt_key IS NOT j.value ->> 1",
            &lists.keys,
        ),
    ] {
        sqlx::query(sql).bind(list).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    }
    Ok(())
}

/// Said before the new key is pinned.
const CHANGED_KEYS: &str = "INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
    SELECT j.value ->> 3, 'agent:' || a.id, 'agent.receipt-key', 'agent:' || a.id, 'allowed',
        'from ' || a.receipt_key || ' to ' || (j.value ->> 1)
    FROM json_each(?1) AS j CROSS JOIN agents AS a ON a.id = j.value ->> 0
    WHERE a.receipt_key IS NOT NULL AND a.receipt_key <> j.value ->> 1";

const STATUS: &str = "INSERT OR REPLACE INTO agent_plugins (agent, plugin, version, digest, state, detail)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1)";

pub(super) async fn statuses(
    conn: &mut SqliteConnection,
    statuses: &BTreeMap<(&AgentId, &str), &PluginStatus>,
) -> Result<(), StoreError> {
    sqlx::query(STATUS).bind(lists::statuses(statuses)?).execute(&mut *conn).await.map_err(StoreError::Statement)?;
    Ok(())
}

/// Who is seen is not stale; whether it is online is said by the instance that has, or had,
/// its session.
pub(super) async fn presence(
    conn: &mut SqliteConnection,
    presence: &BTreeMap<&AgentId, Presence<'_>>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE agents SET last_seen_ms = max(last_seen_ms, j.value ->> 4), stale = 0,
             online = iif(instance = j.value ->> 2 AND session = j.value ->> 3, j.value ->> 1, online)
         FROM json_each(?1) AS j WHERE agents.id = j.value ->> 0",
    )
    .bind(json(&presence_list(presence))?)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::Statement)?;
    Ok(())
}

pub(super) async fn mark_stale(
    conn: &mut SqliteConnection,
    before_ms: u64,
    now_ms: u64,
) -> Result<Vec<AgentId>, StoreError> {
    let rows =
        sqlx::query("UPDATE agents SET stale = 1 WHERE online = 0 AND stale = 0 AND last_seen_ms < ?1 RETURNING id")
            .bind(int(before_ms))
            .fetch_all(&mut *conn)
            .await
            .map_err(StoreError::Statement)?;
    if !rows.is_empty() {
        sqlx::query(
            "INSERT INTO audit (at_ms, actor, action, subject, decision, detail)
             SELECT ?1, 'backend', 'agent.stale', value, 'allowed', 'unseen for longer than stale_after_secs'
             FROM json_each(?2)",
        )
        .bind(int(now_ms))
        .bind(json(&rows.iter().map(|r| r.text("id")).collect::<Result<Vec<_>, _>>()?)?)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::Statement)?;
    }
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// `FROM … WHERE …` on the narrowest index that the conditions offer.
fn conditions(
    query: &mut QueryBuilder<Sqlite>,
    labels: &BTreeMap<String, String>,
    site: Option<&str>,
    online: Option<bool>,
    after: Option<&str>,
) {
    let mut labels = labels.iter();
    let by_label = labels.next();
    if let Some((key, value)) = by_label {
        query.push(" FROM agent_labels AS l CROSS JOIN agents AS a ON a.id = l.agent WHERE l.key = ");
        query.push_bind(key.clone()).push(" AND l.value = ").push_bind(value.clone());
    } else {
        query.push(" FROM agents AS a WHERE true");
    }
    for (key, value) in labels {
        query.push(" AND EXISTS (SELECT 1 FROM agent_labels AS m WHERE m.agent = a.id AND m.key = ");
        query.push_bind(key.clone()).push(" AND m.value = ").push_bind(value.clone()).push(")");
    }
    if let Some(site) = site {
        query.push(" AND a.site = ").push_bind(site.to_owned());
    }
    if let Some(online) = online {
        query.push(" AND a.online = ").push_bind(i64::from(online));
    }
    let id = if by_label.is_some() { "l.agent" } else { "a.id" };
    if let Some(after) = after {
        query.push(" AND ").push(id).push(" > ").push_bind(after.to_owned());
    }
    query.push(" ORDER BY ").push(id);
}

impl Readers {
    pub(in crate::store) async fn agent(&self, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        let mut query = QueryBuilder::new(COLUMNS);
        query.push(" FROM agents AS a WHERE a.id = ").push_bind(id.as_str().to_owned());
        let row = query.build().fetch_optional(&self.pool).await.map_err(StoreError::Statement)?;
        row.as_ref().map(rows::agent).transpose()
    }

    pub(in crate::store) async fn agents(
        &self,
        filter: &AgentFilter,
        page: &PageOf,
    ) -> Result<Page<Agent>, StoreError> {
        let mut query = QueryBuilder::new(COLUMNS);
        conditions(&mut query, &filter.labels, filter.site.as_deref(), filter.online, page.after.as_deref());
        query.push(" LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        rows::page(&found, page, rows::agent, |agent| agent.id.to_string())
    }

    pub(in crate::store) async fn count_agents(&self) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query("SELECT count(*) AS total, coalesce(sum(online), 0) AS online FROM agents")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::Statement)?;
        Ok((row.number("total")?, row.number("online")?))
    }

    pub(in crate::store) async fn select_agents(
        &self,
        selector: &Selector,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        if selector.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::new("SELECT a.id");
        conditions(&mut query, &selector.labels, selector.site.as_deref(), None, None);
        query.push(" LIMIT ").push_bind(i64::from(limit));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        found.iter().map(|row| row.parsed("id")).collect()
    }

    pub(in crate::store) async fn unknown_agents(&self, ids: &[AgentId]) -> Result<Vec<AgentId>, StoreError> {
        let found = sqlx::query(
            "SELECT j.value AS id FROM json_each(?1) AS j WHERE NOT EXISTS (SELECT 1 FROM agents WHERE id = j.value)",
        )
        .bind(json(&ids)?)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found
            .iter()
            .map(|row| row.try_get("id").map_err(StoreError::Statement))
            .map(|id: Result<String, _>| {
                id.and_then(|text| text.parse().map_err(|_| StoreError::Corrupt { what: "id", text }))
            })
            .collect()
    }
}
