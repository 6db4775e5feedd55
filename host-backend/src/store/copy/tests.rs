use std::collections::BTreeSet;

use super::*;
use crate::store::tests::Place;

type Whole = std::collections::BTreeMap<&'static str, Tally>;

async fn tally(url: &StoreUrl) -> Whole {
    let mut snapshot = Snapshot::open(url).await.expect("a snapshot");
    let mut whole = Whole::new();
    for table in TABLES {
        let columns = snapshot.columns(table).await.expect("columns");
        let mut tally = Tally::default();
        let add = |row: Vec<Value>| {
            tally.add(&row);
            Ok::<(), StoreError>(())
        };
        snapshot.rows(table, &columns, add).await.expect("rows");
        whole.insert(table.name, tally);
    }
    whole
}

/// In the order of this list, which is not the engines'.
async fn carry(from: &StoreUrl, to: &StoreUrl, restored: Option<Restored>) -> Result<Filled, StoreError> {
    let mut snapshot = Snapshot::open(from).await?;
    let mut filling = Filling::begin(to).await?;
    for table in TABLES {
        let columns: Vec<String> = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut rows = Vec::new();
        let take = |row| {
            rows.push(row);
            Ok::<(), StoreError>(())
        };
        snapshot.rows(table, &columns, take).await?;
        filling.add(table, &columns, rows).await?;
    }
    filling.finish(restored).await
}

#[tokio::test]
async fn every_table_of_both_engines_is_listed() {
    for place in [Place::sqlite(), Place::postgres()] {
        place.open().await.close().await;
        let tables: BTreeSet<String> = match place.url() {
            StoreUrl::Sqlite(file) => {
                let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("a pool");
                let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
                sqlx::query_scalar(sql).fetch_all(&pool).await.expect("read").into_iter().collect()
            }
            StoreUrl::Postgres(options) => {
                let pool = sqlx::PgPool::connect_with(*options).await.expect("a pool");
                let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
                sqlx::query_scalar(sql).fetch_all(&pool).await.expect("read").into_iter().collect()
            }
        };
        let listed: BTreeSet<String> =
            TABLES.iter().map(|table| table.name).chain(PASSING.iter().copied()).map(str::to_owned).collect();
        assert_eq!(tables, listed);
        let mut snapshot = Snapshot::open(&place.url()).await.expect("a snapshot");
        for table in TABLES {
            let there: BTreeSet<String> = snapshot.columns(table).await.expect("known columns").into_iter().collect();
            let listed: BTreeSet<String> = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(there, listed, "{}", table.name);
        }
    }
}

#[tokio::test]
async fn a_store_moves_to_the_other_engine_and_back() {
    let (from, over, back) = (Place::sqlite(), Place::postgres(), Place::sqlite());
    let store = from.open().await;
    let open = crate::store::tests::furnish(&store).await;
    store.close().await;
    let filled = carry(&from.url(), &over.url(), None).await.expect("carried");
    filled.verify(&over.url()).await.expect("the same");
    let moved = tally(&over.url()).await;
    carry(&over.url(), &back.url(), None).await.expect("carried").verify(&back.url()).await.expect("the same");
    assert_eq!(tally(&back.url()).await, moved);
    for (table, count) in [("commands", 2), ("invocations", 5), ("plugin_parts", 2), ("tokens", 1)] {
        assert_eq!(moved[table].rows, count, "{table}");
    }
    // Numbers go on after those that were taken.
    over.sql("UPDATE tokens SET role = 'admin' WHERE false; DELETE FROM mirror").await.expect("done");
    filled.verify(&over.url()).await.expect("the same still");
    over.sql("UPDATE tokens SET created_ms = created_ms + 1").await.expect("done");
    let differs = filled.verify(&over.url()).await;
    assert!(matches!(differs, Err(StoreError::Differs { table: "tokens", .. })), "{differs:?}");
    let store = over.open().await;
    assert!(!store.agent(&crate::testing::agent("web-1")).await.expect("read").expect("there").online, "not now");
    let before = store.command(&open).await.expect("read").expect("there");
    crate::store::tests::furnish(&store).await;
    assert_eq!(store.command(&open).await.expect("read"), Some(before));
    store.close().await;
    let again = carry(&from.url(), &over.url(), None).await;
    assert!(matches!(again, Err(StoreError::NotEmpty(_))), "{again:?}");
}

#[tokio::test]
async fn a_newer_form_is_not_copied() {
    for place in [Place::sqlite(), Place::postgres()] {
        place.open().await.close().await;
        place.sql("ALTER TABLE tokens ADD COLUMN colour TEXT").await.expect("altered");
        let mut snapshot = Snapshot::open(&place.url()).await.expect("a snapshot");
        let tokens = table("tokens").expect("a table");
        let refused = snapshot.columns(tokens).await;
        assert!(matches!(refused, Err(StoreError::Foreign(_))), "{refused:?}");
    }
}
