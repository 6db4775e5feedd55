//! The bytes that gateways fetch: one shared buffer a part, so that a fleet that fetches
//! together costs one copy. Holds a bounded amount, the latest used.

use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::Mutex;

use super::Catalog;
use crate::store::write::PartKey;
use crate::store::{Store, StoreError};

const KEPT_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Parts {
    store: Store,
    /// Latest used last. Locked while one is read, so that a thousand wait for one read.
    kept: Mutex<VecDeque<(PartKey, Bytes)>>,
}

impl Parts {
    pub(super) fn new(store: Store) -> Self {
        Self { store, kept: Mutex::default() }
    }

    async fn get(&self, key: &PartKey) -> Result<Option<Bytes>, StoreError> {
        let mut kept = self.kept.lock().await;
        if let Some(at) = kept.iter().position(|(k, _)| k == key)
            && let Some(found) = kept.remove(at)
        {
            let bytes = found.1.clone();
            kept.push_back(found);
            return Ok(Some(bytes));
        }
        let Some(bytes) = self.store.plugin_part(key).await? else { return Ok(None) };
        kept.push_back((key.clone(), bytes.clone()));
        while kept.len() > 1 && kept.iter().map(|(_, b)| b.len()).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
        Ok(Some(bytes))
    }
}

impl Catalog {
    /// A part of a published release; `None` when there is no such release.
    pub(crate) async fn part(&self, key: &PartKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.parts.get(key).await
    }
}
