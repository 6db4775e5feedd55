//! Changes to releases: approved, killed, made active. One release of a plugin is active.

use sqlx::PgConnection;

use super::{failed, int, ledger, plain, plugins, rollouts};
use crate::store::StoreError;
use crate::store::model::{Plugin, Standing};
use crate::store::release::Change;

/// Answers the release that it was about, as it stands then.
pub(super) async fn apply(conn: &mut PgConnection, change: &Change) -> Result<Option<Plugin>, StoreError> {
    if !matches!(change, Change::Tallies(_) | Change::Mirror(_)) {
        plugins::hold(conn).await?;
    }
    match change {
        Change::Approve { digest, to, now_ms, audit } => {
            let Some(held) = plugins::by_digest(conn, digest).await?.filter(|p| p.standing == Standing::Held) else {
                return Ok(None);
            };
            stand(conn, &held, *to, *now_ms).await?;
            ledger::audit(conn, &[audit]).await?;
            plugins::by_digest(conn, digest).await
        }
        Change::Kill { digest, note, fallback, rollout, now_ms, audit } => {
            let Some(found) = plugins::by_digest(conn, digest).await? else { return Ok(None) };
            if let Some(progress) = rollout {
                rollouts::proceed(conn, progress).await?;
            }
            stand(conn, &found, Standing::Killed, *now_ms).await?;
            sqlx::query("UPDATE plugins SET note = $2 WHERE digest = $1")
                .bind(digest)
                .bind(plain(note))
                .execute(&mut *conn)
                .await
                .map_err(failed)?;
            if let Some(former) = fallback
                && let Some(former) = plugins::by_digest(conn, former).await?
            {
                stand(conn, &former, Standing::Active, *now_ms).await?;
            }
            ledger::audit(conn, &[audit]).await?;
            plugins::by_digest(conn, digest).await
        }
        Change::Begin(progress) => {
            rollouts::begin(conn, progress).await?;
            plugins::by_digest(conn, &progress.rollout.digest).await
        }
        Change::Proceed(progress) => {
            rollouts::proceed(conn, progress).await?;
            let found = plugins::by_digest(conn, &progress.rollout.digest).await?;
            if let (Some(to), Some(plugin)) = (progress.standing, &found) {
                stand(conn, plugin, to, progress.rollout.changed_ms).await?;
            }
            plugins::by_digest(conn, &progress.rollout.digest).await
        }
        Change::Tallies(tallies) => {
            rollouts::tallies(conn, tallies).await?;
            Ok(None)
        }
        Change::Mirror(files) => {
            for (name, bytes) in files {
                let query = match bytes {
                    Some(bytes) => sqlx::query(
                        "INSERT INTO mirror (name, bytes) VALUES ($1, $2)
                         ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes",
                    )
                    .bind(name)
                    .bind(bytes.as_ref()),
                    None => sqlx::query("DELETE FROM mirror WHERE name = $1").bind(name),
                };
                query.execute(&mut *conn).await.map_err(failed)?;
            }
            Ok(None)
        }
    }
}

/// Make a release stand so. What was active in the place of a new active one is inactive.
pub(super) async fn stand(
    conn: &mut PgConnection,
    plugin: &Plugin,
    to: Standing,
    now_ms: u64,
) -> Result<(), StoreError> {
    if to == Standing::Active {
        sqlx::query("UPDATE plugins SET standing = 'inactive' WHERE plugin = $1 AND standing = 'active'")
            .bind(&plugin.plugin)
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
    }
    sqlx::query(
        "UPDATE plugins SET standing = $2, activated_ms = CASE WHEN $2 = 'active' THEN $3 ELSE activated_ms END WHERE digest = $1",
    )
    .bind(&plugin.digest)
    .bind(to.as_str())
    .bind(int(now_ms))
    .execute(&mut *conn)
    .await
    .map_err(failed)?;
    Ok(())
}
