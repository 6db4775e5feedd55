//! Publication of a bundle, wherever it came from: the release keys' word for it always,
//! and the repository's too where there is one.

use bytes::Bytes;

use super::Repository;
use super::oci::{OciError, Pulled, Registries};
use crate::catalog::{Catalog, PublishError, Wanted};
use crate::store::model::Plugin;

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Releases {
    pub catalog: Catalog,
    pub repository: Option<Repository>,
    pub registries: Registries,
}

impl Releases {
    /// Publish a bundle.
    ///
    /// # Errors
    /// As [`Catalog::publish`]; and where there is a repository, what its metadata says.
    pub async fn publish(
        &self,
        component: Bytes,
        statements: String,
        wanted: Wanted,
        by: &str,
    ) -> Result<Plugin, PublishError> {
        let Some(repository) = &self.repository else {
            return self.catalog.publish(component, statements, wanted, by).await;
        };
        let current = repository.current();
        let trusted = current.trusted.as_ref().ok_or(PublishError::NoRepository)?;
        let revoked: Vec<String> = trusted.revocations().keys().map(str::to_owned).collect();
        let verified = self.catalog.verify(component.clone(), statements.clone(), &revoked).await?;
        repository.vouch(trusted, &verified, component.len(), &statements)?;
        self.catalog.enter(&verified, component, statements.into(), wanted, by).await
    }

    /// A bundle from a registry, by `oci://HOST/NAME:TAG`.
    ///
    /// # Errors
    /// When the registry is not one of ours, or does not have it.
    pub async fn pull(&self, reference: &str) -> Result<Pulled, OciError> {
        self.registries.pull(reference).await
    }
}
