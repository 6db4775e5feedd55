//! The embedded engine's rows, as the mapping reads them.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::store::StoreError;
pub(super) use crate::store::columns::*;
pub(super) use crate::store::rows::*;

impl RowExt for SqliteRow {
    fn text(&self, name: &'static str) -> Result<String, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn maybe_text(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn real(&self, name: &'static str) -> Result<f64, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn maybe_signed(&self, name: &'static str) -> Result<Option<i64>, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }
}
