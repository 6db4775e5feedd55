//! `/plugins/{name}/rollouts`: a release in stages, watched and steered.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::super::Shared;
use super::super::extract::{Json, Path, Query};
use super::super::moment::Moment;
use super::super::page::{List, Page, PageQuery};
use super::super::problem::{Problem, ProblemBody, Result};
use super::refused;
use crate::authz::{Permit, action};
use crate::rollouts::shadow::ShadowSample;
use crate::rollouts::tally::Tally;
use crate::rollouts::{Gates, RolloutError, Shadow, ShadowTally, Spec, Stage, Steer};
use crate::store::model::{self, RolloutState};

/// A release to be rolled out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRollout {
    /// Of a release of this plugin that is staged or inactive.
    digest: String,
    stages: Vec<Stage>,
    #[serde(default)]
    gates: Gates,
    /// Plan it beside the active release before anybody gets it.
    #[serde(default)]
    shadow: Option<Shadow>,
}

/// A release on its way to the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rollout {
    pub id: String,
    pub plugin: String,
    pub digest: String,
    /// Of the release that was active when it began.
    pub former: String,
    pub state: Standing,
    /// What is awaited: `deploying` until the stage's members have it, then `soaking`.
    pub phase: Option<Phase>,
    /// Whether it is planned beside the former release still, and nobody has it.
    pub shadowing: bool,
    /// The stage at hand, from 0.
    pub stage: u32,
    pub stages: Vec<Stage>,
    pub gates: Gates,
    /// What it was to be planned for, where it was, and what came of that.
    pub shadow: Option<ShadowRun>,
    /// When this stage's watching began.
    pub soaking: Option<Moment>,
    /// Why it was paused, halted or ended.
    pub reason: Option<String>,
    pub members: Members,
    /// What both releases did, by verb.
    pub verbs: BTreeMap<String, Comparison>,
    pub created: Moment,
    pub created_by: String,
    pub changed: Moment,
    pub finished: Option<Moment>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutState)]
pub enum Standing {
    Running,
    Paused,
    /// By its shadow.
    Halted,
    Succeeded,
    RolledBack,
    Aborted,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Deploying,
    Soaking,
}

/// Members of a rollout that has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    /// Those with a session.
    pub present: u32,
    /// Those that have the release active.
    pub have: u32,
    /// Those that refused it.
    pub refused: u32,
}

/// A release planned beside another.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShadowRun {
    pub stage: Shadow,
    pub verbs: BTreeMap<String, ShadowVerb>,
}

/// One verb of it, on all agents together.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShadowVerb {
    /// Invocations with the same effects and the same end, as far as a plan can tell.
    pub equal: u64,
    /// With others.
    pub departed: u64,
    /// That failed where the active release did not.
    pub failed: u64,
    /// That could not be compared, by reason: `busy`, `late`, `disturbed`.
    pub skipped: BTreeMap<String, u64>,
    /// The first that departed or failed.
    pub samples: Vec<ShadowSample>,
}

/// One verb under both releases.
#[derive(Debug, Serialize, ToSchema)]
pub struct Comparison {
    pub new: Did,
    pub former: Did,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Did {
    pub runs: u64,
    pub failed: u64,
    pub denied: u64,
    /// The 95th percentile of wall time, in milliseconds, to within a fifth.
    pub p95_ms: f64,
    /// The mean of cpu time, in milliseconds.
    pub cpu_ms: f64,
}

/// Begin to roll a release out.
#[utoipa::path(post, operation_id = "begin_rollout", path = "/plugins/{name}/rollouts", tag = "plugins",
    params(("name" = String, Path)), request_body = NewRollout, security(("token" = [])), responses(
    (status = 201, body = Rollout),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn post(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Path(name): Path<String>,
    Json(new): Json<NewRollout>,
) -> Result<(StatusCode, axum::Json<Rollout>)> {
    let spec = Spec { shadow: new.shadow, stages: new.stages, gates: new.gates };
    let begun = api.app.rollouts.begin(&name, &new.digest, &spec, permit.name()).await;
    Ok((StatusCode::CREATED, answer(&api, permit.name(), "rollout.begin", begun).await?))
}

/// The plugin's rollouts, newest first.
#[utoipa::path(get, operation_id = "list_rollouts", path = "/plugins/{name}/rollouts", tag = "plugins",
    params(("name" = String, Path), PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Rollout>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Rollout>>> {
    let page = List::Rollouts.page(query.limit, query.after.as_deref())?;
    let model::Page { items, next } = api.app.store.rollouts(&name, &page).await?;
    let items = items.into_iter().map(|of| Rollout::of(&api, of)).collect::<Result<_>>()?;
    Ok(axum::Json(Page { items, next: next.map(|key| List::Rollouts.seal(&key)) }))
}

/// One rollout.
#[utoipa::path(get, operation_id = "get_rollout", path = "/plugins/{name}/rollouts/{id}", tag = "plugins",
    params(("name" = String, Path), ("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Rollout),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path((name, id)): Path<(String, String)>,
) -> Result<axum::Json<Rollout>> {
    let of = api.app.rollouts.get(&name, &id).await?;
    Ok(axum::Json(Rollout::of(&api, of)?))
}

/// Stop a rollout where it is: members keep the release, no stage begins.
#[utoipa::path(post, operation_id = "pause_rollout", path = "/plugins/{name}/rollouts/{id}/pause", tag = "plugins",
    params(("name" = String, Path), ("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Rollout),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn pause(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Path((name, id)): Path<(String, String)>,
) -> Result<axum::Json<Rollout>> {
    let done = api.app.rollouts.steer(&name, &id, Steer::Pause, permit.name()).await;
    answer(&api, permit.name(), "rollout.pause", done).await
}

/// Go on with a paused rollout. One that its shadow halted begins its first stage all the
/// same: that is an administrator's to decide.
#[utoipa::path(post, operation_id = "resume_rollout", path = "/plugins/{name}/rollouts/{id}/resume", tag = "plugins",
    params(("name" = String, Path), ("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Rollout),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn resume(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Path((name, id)): Path<(String, String)>,
) -> Result<axum::Json<Rollout>> {
    let done = resumed(&api, &permit, &name, &id).await;
    answer(&api, permit.name(), "rollout.resume", done).await
}

/// End a rollout: its members are offered the former release again.
#[utoipa::path(post, operation_id = "abort_rollout", path = "/plugins/{name}/rollouts/{id}/abort", tag = "plugins",
    params(("name" = String, Path), ("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Rollout),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn abort(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Path((name, id)): Path<(String, String)>,
) -> Result<axum::Json<Rollout>> {
    let done = api.app.rollouts.steer(&name, &id, Steer::Abort, permit.name()).await;
    answer(&api, permit.name(), "rollout.abort", done).await
}

async fn resumed(
    api: &Shared,
    permit: &Permit<action::Publish>,
    name: &str,
    id: &str,
) -> std::result::Result<model::Rollout, RolloutError> {
    let rollouts = &api.app.rollouts;
    if rollouts.get(name, id).await?.state != RolloutState::Halted {
        return rollouts.steer(name, id, Steer::Resume, permit.name()).await;
    }
    let permit = Permit::<action::Administer>::grant(permit.principal().clone())?;
    rollouts.overrule(name, id, &permit).await
}

async fn answer(
    api: &Shared,
    by: &str,
    action: &str,
    done: std::result::Result<model::Rollout, RolloutError>,
) -> Result<axum::Json<Rollout>> {
    match done {
        Ok(of) => Ok(axum::Json(Rollout::of(api, of)?)),
        Err(error) => {
            let problem = Problem::from(error);
            refused(api, by, action, "rollout", &problem).await;
            Err(problem)
        }
    }
}

impl Rollout {
    fn of(api: &Shared, of: model::Rollout) -> Result<Self> {
        let spec: Spec = serde_json::from_str(&of.spec).map_err(|e| Problem::internal(&e))?;
        let facts = api.app.rollouts.facts(&of);
        let phase =
            of.state.is_open().then_some(if of.soaking_ms.is_some() { Phase::Soaking } else { Phase::Deploying });
        let verbs = facts.totals.into_iter();
        let shadowing = of.is_shadowing();
        let stage = of.stage.saturating_sub(u32::from(spec.shadow.is_some()));
        let planned = facts.planned.into_iter().map(|(verb, tally)| (verb, tally.into())).collect();
        Ok(Self {
            id: of.id,
            plugin: of.plugin,
            digest: of.digest,
            former: of.former,
            state: of.state.into(),
            phase,
            shadowing,
            stage,
            shadow: spec.shadow.map(|stage| ShadowRun { stage, verbs: planned }),
            stages: spec.stages,
            gates: spec.gates,
            soaking: of.soaking_ms.map(Moment),
            reason: (!of.reason.is_empty()).then_some(of.reason),
            members: Members { present: facts.present, have: facts.have, refused: facts.refused },
            verbs: verbs.map(|(v, c)| (v, Comparison { new: did(&c.new), former: did(&c.former) })).collect(),
            created: Moment(of.created_ms),
            created_by: of.created_by,
            changed: Moment(of.changed_ms),
            finished: of.finished_ms.map(Moment),
        })
    }
}

impl From<ShadowTally> for ShadowVerb {
    fn from(ShadowTally { equal, departed, failed, skipped, samples }: ShadowTally) -> Self {
        Self { equal, departed, failed, skipped, samples }
    }
}

fn did(tally: &Tally) -> Did {
    let millis = |us: f64| (us / 10.0).round() / 100.0;
    Did {
        runs: tally.runs,
        failed: tally.failed,
        denied: tally.denied,
        p95_ms: millis(tally.p95_wall_us()),
        cpu_ms: millis(tally.mean_cpu_us()),
    }
}

impl From<RolloutState> for Standing {
    fn from(state: RolloutState) -> Self {
        match state {
            RolloutState::Running => Self::Running,
            RolloutState::Paused => Self::Paused,
            RolloutState::Halted => Self::Halted,
            RolloutState::Succeeded => Self::Succeeded,
            RolloutState::RolledBack => Self::RolledBack,
            RolloutState::Aborted => Self::Aborted,
        }
    }
}
