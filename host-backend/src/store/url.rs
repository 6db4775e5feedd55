//! Where the store is: a file of the data directory, or a PostgreSQL database. Never shows
//! a password.

use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `postgres://user@host/database?sslmode=…` as it was configured. It may hold a password,
/// which is shown to nobody; better is a password file (`PGPASSFILE`).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("does not begin with postgres://; without this key the store is a file of data_dir")]
    Scheme,
    #[error("is no PostgreSQL URL: {0}")]
    Form(String),
    #[error("names no database")]
    Database,
}

/// Which database, ready to be opened.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl DatabaseUrl {
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// # Errors
    /// What is wrong with it, without the text of it.
    pub fn options(&self) -> Result<PgConnectOptions, UrlError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme)) {
            return Err(UrlError::Scheme);
        }
        let options = PgConnectOptions::from_str(&self.0).map_err(|error| match error {
            sqlx::Error::Configuration(cause) => UrlError::Form(cause.to_string()),
            other => UrlError::Form(other.to_string()),
        })?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(UrlError::Database);
        }
        Ok(options)
    }
}

/// Scheme, host and database alone.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.options() {
            Ok(options) => write!(f, "postgres://{}/{}", options.get_host(), options.get_database().unwrap_or("?")),
            Err(error) => write!(f, "DatabaseUrl({error})"),
        }
    }
}

impl StoreUrl {
    /// For logs and messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Sqlite(file) => file.display().to_string(),
            Self::Postgres(options) => {
                format!("postgres://{}/{}", options.get_host(), options.get_database().unwrap_or("?"))
            }
        }
    }
}

impl From<PathBuf> for StoreUrl {
    fn from(file: PathBuf) -> Self {
        Self::Sqlite(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url = DatabaseUrl::new("postgres://viworks:s3cret@db.example.com:5433/viworks?sslmode=verify-full");
        let Ok(options) = url.options() else { panic!("a URL") };
        let shown = format!("{url:?} {}", StoreUrl::Postgres(Box::new(options)).shown());
        assert!(shown.contains("db.example.com/viworks") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn what_is_no_database_is_refused() {
        assert_eq!(DatabaseUrl::new("mysql://db/x").options().err(), Some(UrlError::Scheme));
        assert_eq!(DatabaseUrl::new("postgres://db.example.com").options().err(), Some(UrlError::Database));
        let bad = DatabaseUrl::new("postgres://db.example.com/x?sslmode=sometimes").options();
        assert!(matches!(bad, Err(UrlError::Form(_))), "{bad:?}");
    }
}
