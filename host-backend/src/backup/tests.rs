use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::model::PageOf;
use crate::store::tests::{Place, furnish};
use crate::store::url::DatabaseUrl;

const NOW: u64 = 1_900_000_000_000;

fn config(dir: &Path, place: &Place) -> Config {
    let database_url = match place {
        Place::Sqlite(_) => None,
        Place::Postgres(url) => Some(DatabaseUrl::new(url)),
    };
    Config { data_dir: dir.join("data"), database_url, ..Config::default() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// From one engine into the other, and again.
#[tokio::test]
async fn a_backup_of_either_engine_fills_either() {
    for (from, to) in [
        (Place::sqlite(), Place::postgres()),
        (Place::postgres(), Place::sqlite()),
        (Place::sqlite(), Place::sqlite()),
        (Place::postgres(), Place::postgres()),
    ] {
        let (dir, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (old, new_config) = (config(dir.path(), &from), config(new.path(), &to));
        make(&old.data_dir).expect("a directory");
        let key = keys::secret_or_new(&old.warrant_key()).expect("a key");
        let store = Store::open(&old.database()).await.expect("a store");
        let open = furnish(&store).await;
        let out = dir.path().join("viworks.backup");
        // The store is open, and written to later.
        let summary = backup(&old, &out, NOW).await.expect("backed up");
        assert_eq!(mode(&out), 0o600);
        assert_eq!(summary.keys, ["warrant.pub.pem", "warrant.key.pem"]);
        furnish(&store).await;
        store.close().await;

        let restored = restore(&new_config, &out, NOW + 5).await.expect("restored");
        let but_restores = |summary: &Summary| {
            summary.tables.iter().filter(|(name, _)| name != "restores").cloned().collect::<Vec<_>>()
        };
        assert_eq!(but_restores(&restored), but_restores(&summary));
        assert_eq!(keys::secret(&new_config.warrant_key()).expect("the key").public(), key.public());
        assert_eq!(mode(&new_config.warrant_key()), 0o600);
        let store = Store::open(&new_config.database()).await.expect("a store");
        let newest = store.audit_page(&PageOf::first(1)).await.expect("read").items[0].entry.clone();
        assert_eq!(newest.action, "store.restore");
        // Two are queued that the lost store may have delivered.
        let expired = store.expire(NOW, 1_000).await.expect("expired");
        assert_eq!((expired.expired, expired.unknown), (0, 3));
        let ended = store.command(&open).await.expect("read").expect("there");
        assert_eq!(ended.counts.unknown, 3);
        store.close().await;

        let again = restore(&new_config, &out, NOW).await;
        assert!(matches!(again, Err(BackupError::NotEmpty { .. })), "{again:?}");
        let over = backup(&old, &out, NOW).await;
        assert!(matches!(over, Err(BackupError::Exists { .. })), "{over:?}");
    }
}

#[tokio::test]
async fn what_is_not_whole_is_not_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = config(dir.path(), &Place::sqlite());
    make(&old.data_dir).expect("a directory");
    let store = Store::open(&old.database()).await.expect("a store");
    furnish(&store).await;
    store.close().await;
    let out = dir.path().join("viworks.backup");
    backup(&old, &out, NOW).await.expect("backed up");
    let whole = fs::read_to_string(&out).expect("text");
    let cut = &whole[..whole.len() / 2];
    let end = whole.lines().last().expect("a line");
    let cases = [
        cut.to_owned(),
        cut[..cut.rfind('\n').expect("lines") + 1].to_owned(),
        whole.replacen("alice", "malic", 1),
        whole.replacen("\"viworks_backup\":1", "\"viworks_backup\":2", 1),
        format!("{whole}{end}\n"),
        String::new(),
    ];
    for (n, text) in cases.iter().enumerate() {
        let (broken, new) = (dir.path().join(format!("{n}.backup")), dir.path().join(format!("new-{n}")));
        fs::write(&broken, text).expect("written");
        let refused = restore(&config(&new, &Place::sqlite()), &broken, NOW).await;
        assert!(matches!(refused, Err(BackupError::Broken { .. } | BackupError::Format { .. })), "{n}: {refused:?}");
        assert!(!new.exists(), "{n}: nothing was made");
    }
}

#[tokio::test]
async fn an_import_needs_a_stopped_backend_and_an_empty_store() {
    let (dir, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (from, to) = (config(dir.path(), &Place::sqlite()), config(new.path(), &Place::postgres()));
    make(&from.data_dir).expect("a directory");
    let store = Store::open(&from.database()).await.expect("a store");
    let open = furnish(&store).await;
    store.close().await;
    let file = from.data_dir.join("viworks.db");
    let held = hold(&from.data_dir).expect("held");
    let refused = import(&to, &file, NOW).await;
    assert!(matches!(refused, Err(BackupError::Runs { .. })), "{refused:?}");
    drop(held);
    let summary = import(&to, &file, NOW).await.expect("imported");
    assert!(summary.tables.contains(&("invocations".to_owned(), 5)), "{summary:?}");
    let store = Store::open(&to.database()).await.expect("a store");
    // The store is as new as it was: what is queued was delivered to nobody.
    let expired = store.expire(NOW, 1_000).await.expect("expired");
    assert_eq!((expired.expired, expired.unknown), (2, 1));
    assert!(store.command(&open).await.expect("read").is_some());
    store.close().await;
    let again = import(&to, &file, NOW).await;
    assert!(matches!(again, Err(BackupError::Store(StoreError::NotEmpty(_)))), "{again:?}");
}
