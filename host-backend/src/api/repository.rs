//! `/repository`: the release repository that this backend mirrors, and news for it by
//! upload where no directory is watched.

use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;
use utoipa::ToSchema;

use super::Shared;
use super::extract::Octets;
use super::moment::Moment;
use super::plugins::{Plugin, refused};
use super::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::repository::{self, Current, Source, container};

/// The release repository as it is served to gateways.
#[derive(Debug, Serialize, ToSchema)]
pub struct Repository {
    /// Null before the first update that was taken.
    pub versions: Option<Versions>,
    /// The role that expires first, and when: gateways admit nothing new after that.
    pub expires: Option<Expiry>,
    pub targets: usize,
    /// Why the last update was refused; null if it was taken.
    pub fault: Option<Fault>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Versions {
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    /// `targets` and the delegated roles.
    pub roles: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Expiry {
    pub role: String,
    pub at: Moment,
}

/// A check that refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fault {
    /// Stable, `E_…`.
    pub code: String,
    pub detail: String,
}

/// What an update brought.
#[derive(Debug, Serialize, ToSchema)]
pub struct Update {
    pub repository: Repository,
    /// Releases that are new here; look at their states.
    pub published: Vec<Plugin>,
    /// Releases that were not taken, and why.
    pub refused: Vec<RefusedTarget>,
    /// Digests of releases that the repository took back.
    pub killed: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedTarget {
    pub target: String,
    pub fault: Fault,
}

/// The mirrored repository.
#[utoipa::path(get, operation_id = "get_repository", path = "/repository", tag = "plugins", security(("token" = [])), responses(
    (status = 200, body = Repository),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(State(api): State<Shared>, _: Permit<action::Read>) -> Result<axum::Json<Repository>> {
    Ok(axum::Json(Repository::of(&configured(&api)?.current())))
}

/// Update the repository from the file that `viworks-sign repo export` writes, and publish
/// what is new in it.
#[utoipa::path(post, operation_id = "update_repository", path = "/repository", tag = "plugins",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), security(("token" = [])), responses(
    (status = 200, body = Update),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn post(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Octets(bytes): Octets,
) -> Result<axum::Json<Update>> {
    let repository = configured(&api)?;
    let files = container::read(&bytes)
        .map_err(|what| Problem::invalid(format!("no exported repository: {what}")).because("E_CONTAINER"))?;
    match repository.update(Source::Files(files), permit.name()).await {
        Ok(report) => Ok(axum::Json(Update::of(&api, repository, report).await?)),
        Err(error) => {
            let problem = Problem::from(error);
            refused(&api, permit.name(), "repository.update", "repository", &problem).await;
            Err(problem)
        }
    }
}

fn configured(api: &Shared) -> Result<&repository::Repository> {
    let none = || Problem::not_found("trusted root in the configuration, and so no", "repository");
    api.app.releases.repository.as_ref().ok_or_else(none)
}

impl Repository {
    fn of(current: &Current) -> Self {
        let trusted = current.trusted.as_ref();
        let expires = trusted.map(|trusted| {
            let (role, at) = trusted.expires();
            let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            Expiry { role: role.to_owned(), at: Moment(u64::try_from(millis).unwrap_or(u64::MAX)) }
        });
        let versions = trusted.map(|trusted| trusted.versions().clone());
        Self {
            versions: versions.map(|v| Versions {
                root: v.root,
                timestamp: v.timestamp,
                snapshot: v.snapshot,
                roles: v.roles,
            }),
            expires,
            targets: trusted.map_or(0, |trusted| trusted.targets().len()),
            fault: current
                .fault
                .as_ref()
                .map(|(code, detail)| Fault { code: (*code).to_owned(), detail: detail.clone() }),
        }
    }
}

impl Update {
    async fn of(api: &Shared, repository: &repository::Repository, report: repository::Report) -> Result<Self> {
        let spread = api.app.store.plugin_spread().await?;
        let refused = report.refused.into_iter().map(|(target, error)| {
            let problem = Problem::from(error);
            let code = problem.reason().unwrap_or("E_INTERNAL").to_owned();
            RefusedTarget { target, fault: Fault { code, detail: problem.detail().to_owned() } }
        });
        Ok(Self {
            repository: Repository::of(&repository.current()),
            refused: refused.collect(),
            published: report.published.into_iter().map(|p| Plugin::of(p, &spread)).collect::<Result<_>>()?,
            killed: report.killed,
        })
    }
}
