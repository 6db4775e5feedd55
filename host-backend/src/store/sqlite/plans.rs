//! Plans as they are read: equal ones together, a fixed number of statements whatever the
//! number of agents; and where a command's effects can be taken back.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use std::collections::HashMap;
use viworks_protocol::id::{AgentId, CommandId};

use super::rows::{self, RowExt as _, command_columns};
use super::{Readers, json};
use crate::store::StoreError;
use crate::store::model::{Command, Page, PageOf, PlanGroup};

/// Agents that are named of each group.
const NAMED: u32 = 100;

impl Readers {
    pub(in crate::store) async fn plan_groups(
        &self,
        command: &CommandId,
        page: &PageOf,
    ) -> Result<Page<PlanGroup>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT plan, count(*) AS count, min(ordinal) AS first, command FROM invocations
             WHERE plan IS NOT NULL AND command = (SELECT n FROM commands WHERE id = ",
        );
        query.push_bind(command.as_str().to_owned()).push(") GROUP BY plan");
        if let Some(after) = &page.after {
            let cursor = || StoreError::Cursor(after.clone());
            let (count, digest) = after.split_once(':').ok_or_else(cursor)?;
            let count: i64 = count.parse().map_err(|_| cursor())?;
            query.push(" HAVING count < ").push_bind(count).push(" OR (count = ").push_bind(count);
            query.push(" AND plan > ").push_bind(digest.to_owned()).push(")");
        }
        query.push(" ORDER BY count DESC, plan LIMIT ").push_bind(rows::limit(page));
        let found = query.build().fetch_all(&self.pool).await.map_err(StoreError::Statement)?;
        let Some(row) = found.first() else { return Ok(Page { items: Vec::new(), next: None }) };
        let n: i64 = row.try_get("command").map_err(StoreError::Statement)?;

        let shown = found.iter().take(page.limit() as usize);
        let (mut digests, mut firsts) = (Vec::new(), Vec::new());
        for row in shown {
            digests.push(row.text("plan")?);
            firsts.push(row.number("first")?);
        }
        let mut effects = self.first_effects(n, &firsts).await?;
        let mut agents = self.named(n, &digests).await?;
        let group = |row: &_| {
            let digest: String = rows::RowExt::text(row, "plan")?;
            Ok((digest, rows::RowExt::small(row, "count")?))
        };
        let page = rows::page(&found, page, group, |(digest, count)| format!("{count}:{digest}"))?;
        let items = page.items.into_iter().map(|(digest, count)| PlanGroup {
            agents: agents.remove(&digest).unwrap_or_default(),
            effects: effects.remove(&digest).unwrap_or_default(),
            digest,
            count,
        });
        Ok(Page { items: items.collect(), next: page.next })
    }

    /// By plan.
    async fn first_effects(&self, n: i64, ordinals: &[u64]) -> Result<HashMap<String, String>, StoreError> {
        let found = sqlx::query(
            "SELECT i.plan, coalesce(i.report -> '$.effects', '[]') AS effects FROM json_each(?2) AS j
             CROSS JOIN invocations AS i ON i.command = ?1 AND i.ordinal = j.value",
        )
        .bind(n)
        .bind(json(&ordinals)?)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| Ok((row.text("plan")?, row.text("effects")?))).collect()
    }

    /// The first agents of each plan.
    async fn named(&self, n: i64, digests: &[String]) -> Result<HashMap<String, Vec<AgentId>>, StoreError> {
        let found = sqlx::query(
            "SELECT i.plan, i.agent FROM
                 (SELECT plan, ordinal, row_number() OVER (PARTITION BY plan ORDER BY ordinal) AS place
                  FROM invocations WHERE plan IS NOT NULL AND command = ?1
                      AND plan IN (SELECT value FROM json_each(?2))) AS p
             CROSS JOIN invocations AS i ON i.command = ?1 AND i.ordinal = p.ordinal
             WHERE p.place <= ?3 ORDER BY i.ordinal",
        )
        .bind(n)
        .bind(json(&digests)?)
        .bind(NAMED)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        let mut named: HashMap<String, Vec<AgentId>> = HashMap::new();
        for row in &found {
            named.entry(row.text("plan")?).or_default().push(row.parsed("agent")?);
        }
        Ok(named)
    }

    pub(in crate::store) async fn plan_digests(
        &self,
        command: &CommandId,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let found = sqlx::query(
            "SELECT DISTINCT plan FROM invocations
             WHERE plan IS NOT NULL AND command = (SELECT n FROM commands WHERE id = ?1) ORDER BY plan LIMIT ?2",
        )
        .bind(command.as_str())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| row.text("plan")).collect()
    }

    pub(in crate::store) async fn command_of_plan(&self, digest: &str) -> Result<Option<Command>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            command_columns!(),
            " FROM commands AS c WHERE c.n = (SELECT max(command) FROM invocations WHERE plan = ?1)"
        ))
        .bind(digest)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        row.as_ref().map(rows::command).transpose()
    }

    pub(in crate::store) async fn undo_targets(&self, command: &CommandId) -> Result<Vec<AgentId>, StoreError> {
        let found = sqlx::query(
            "SELECT i.agent FROM invocations AS i
             WHERE i.command = (SELECT n FROM commands WHERE id = ?1) AND i.seq IS NOT NULL
                 AND EXISTS (SELECT 1 FROM json_each(i.report, '$.effects') AS e
                             WHERE e.value ->> 'state' IN ('applied', 'stuck', 'unknown'))
                 AND i.agent NOT IN (SELECT u.agent FROM commands AS c JOIN invocations AS u ON u.command = c.n
                                     WHERE c.undo_of = ?1 AND c.mode = 'apply' AND u.state = 'succeeded')
             ORDER BY i.ordinal",
        )
        .bind(command.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::Statement)?;
        found.iter().map(|row| row.parsed("agent")).collect()
    }
}
