//! The forms of the database over time. Migrations only add, so that backends of this and
//! of the next version work on one database side by side. Refuses a database whose floor
//! says that a backend must know a migration that this one does not.

#[cfg(test)]
mod tests;

use sqlx::migrate::Migrator;

use super::StoreError;

/// The number of the last migration.
pub(super) fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The same migrations, run also where a newer backend applied more.
pub(super) fn tolerant(migrations: &Migrator) -> Migrator {
    let mut tolerant = Migrator::with_migrations(migrations.iter().cloned().collect());
    tolerant.set_ignore_missing(true);
    tolerant
}

/// # Errors
/// [`StoreError::TooNew`].
pub(super) fn refuse(floor: i64, known: i64) -> Result<(), StoreError> {
    if floor > known { Err(StoreError::TooNew { floor, known }) } else { Ok(()) }
}
