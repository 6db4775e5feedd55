//! A newer backend beside this one: its migrations are applied under this one's feet.

use crate::store::tests::{Place, accept, command, furnish, settlement};
use crate::store::{Store, StoreError};

/// What the next version's migration would do to both engines: only add.
const NEXT: &str = "ALTER TABLE commands ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
    ALTER TABLE agents ADD COLUMN colour TEXT;
    ALTER TABLE plugins ADD COLUMN colour TEXT;
    ALTER TABLE tokens ADD COLUMN colour TEXT;
    CREATE TABLE colours (name TEXT PRIMARY KEY);";

fn applied(place: &Place) -> &'static str {
    match place {
        Place::Sqlite(_) => {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'next', true, x'00', 0)"
        }
        Place::Postgres(_) => {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'next', true, '\\x00', 0)"
        }
    }
}

async fn works(store: &Store) {
    let new = command(2, 2, None);
    let targets = new.targets.clone();
    let id = accept(store, new).await.id;
    store.settle(targets.iter().map(|t| settlement(t, &t.agent)).collect()).await.expect("settled");
    assert_eq!(store.command(&id).await.expect("read").expect("there").counts.succeeded, 2);
    furnish(store).await;
    let page = crate::store::model::PageOf::first(10);
    store.agents(&crate::store::model::AgentFilter::default(), &page).await.expect("read");
    store.commands(&crate::store::model::CommandFilter::default(), &page).await.expect("read");
    store.tokens(&page).await.expect("read");
    store.plugins().await.expect("read");
}

#[tokio::test]
async fn a_backend_works_on_while_the_next_one_migrates() {
    for place in [Place::sqlite(), Place::postgres()] {
        let store = place.open().await;
        // Twice, so that statements are prepared.
        works(&store).await;
        works(&store).await;
        place.sql(NEXT).await.expect("migrated");
        place.sql(applied(&place)).await.expect("noted");
        works(&store).await;
        store.close().await;
        // And starts on it.
        let store = place.open().await;
        works(&store).await;
        store.close().await;
        // Until the newer one says that it must not.
        place.sql("UPDATE schema_floor SET migration = 9999").await.expect("marked");
        let refused = Store::open(&place.url()).await;
        assert!(matches!(refused, Err(StoreError::TooNew { floor: 9999, .. })), "{refused:?}");
    }
}

/// The rule of docs/migrations.md, as far as words tell.
#[test]
fn migrations_only_add() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut looked = 0;
    for (engine, after) in [("sqlite", 4), ("postgres", 1)] {
        for entry in std::fs::read_dir(root.join(engine).join("migrations")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let number: u32 = name.split('_').next().and_then(|n| n.parse().ok()).expect("a number");
            if number <= after {
                continue;
            }
            looked += 1;
            let text = std::fs::read_to_string(&path).expect("text").to_uppercase();
            for word in ["DROP TABLE", "DROP COLUMN", "RENAME ", "ALTER COLUMN", "SET NOT NULL"] {
                assert!(!text.contains(word), "{engine}/{name}: {word} breaks the backend before it");
            }
            for statement in text.split(';').filter(|s| s.contains("ADD COLUMN") && s.contains("NOT NULL")) {
                assert!(statement.contains("DEFAULT"), "{engine}/{name}: what is added needs a default");
            }
        }
    }
    assert!(looked > 0);
}
