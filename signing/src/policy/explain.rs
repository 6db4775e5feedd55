//! What a policy leaves of a release, side by side: what the release asks for, what its
//! reviews allow, what the policy allows, and the grant that follows. For people and as
//! JSON; what enforces the grant is [`crate::grant`], which asks every layer.

mod meet;
mod show;

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

use super::Policy;
use crate::grant::{CAPABILITIES, Scopes};
use crate::release::{EffectClass, Limits, Release};
use crate::review::Review;
use crate::verify::VerifiedRelease;

/// Request, reviews, policy and result. Its `Display` is a table, its JSON the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub plugin: String,
    pub version: String,
    /// Why the policy takes no such plugin; nothing of the rest holds then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How many reviews narrow the release.
    pub reviews: usize,
    pub verbs: Vec<VerbRow>,
    pub capabilities: Vec<CapabilityRow>,
    pub limits: Vec<Row>,
}

/// One verb of the release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerbRow {
    pub verb: String,
    pub effect: EffectClass,
    /// Whether every review lets it run.
    pub runs: bool,
    /// Operators that must approve each command.
    pub approvals: u32,
}

/// One capability that the release asks for or the policy allows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CapabilityRow {
    pub capability: String,
    pub granted: bool,
    /// The layers without it: `release`, `review`, `policy`.
    pub missing: Vec<&'static str>,
    pub fields: Vec<Row>,
}

/// One field in every layer; `null` where a layer does not have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub field: String,
    pub request: Value,
    pub reviews: Vec<Value>,
    pub policy: Value,
    pub result: Value,
}

impl Policy {
    /// What this policy leaves of a release with these reviews.
    #[must_use]
    pub fn explain<'a>(&self, release: &Release, reviews: impl IntoIterator<Item = &'a Review>) -> Explanation {
        let reviews: Vec<&Review> = reviews.into_iter().collect();
        let verb = |(name, verb): (&String, &crate::release::Verb)| VerbRow {
            verb: name.clone(),
            effect: verb.effect,
            runs: reviews.iter().all(|review| review.verbs.contains(name)),
            approvals: self.approvals_of(name),
        };
        let request = layer(&release.capabilities);
        let allowed: Vec<_> = reviews.iter().map(|review| layer(&review.capabilities)).collect();
        let policy = layer(&self.scopes);
        let named = CAPABILITIES.iter().filter(|name| request.contains_key(**name) || policy.contains_key(**name));
        Explanation {
            plugin: release.plugin.clone(),
            version: release.version.to_string(),
            refused: self.takes(release).err().map(|refused| refused.to_string()),
            reviews: reviews.len(),
            verbs: release.verbs.iter().map(verb).collect(),
            capabilities: named.map(|name| capability(name, &request, &allowed, &policy)).collect(),
            limits: limits(release.limits, &reviews, self.limits),
        }
    }

    /// As [`Policy::explain`], of a release whose reviews are verified.
    #[must_use]
    pub fn explain_verified(&self, verified: &VerifiedRelease) -> Explanation {
        self.explain(verified.release(), verified.reviews().iter().map(crate::verify::VerifiedReview::review))
    }
}

type Layer = Map<String, Value>;

fn layer(scopes: &Scopes) -> Layer {
    match serde_json::to_value(scopes) {
        Ok(Value::Object(layer)) => layer,
        _ => Map::new(),
    }
}

fn capability(name: &str, request: &Layer, reviews: &[Layer], policy: &Layer) -> CapabilityRow {
    let scope = |layer: &Layer| layer.get(name).and_then(Value::as_object).cloned();
    let (request, policy) = (scope(request), scope(policy));
    let reviews: Vec<Option<Layer>> = reviews.iter().map(scope).collect();
    let lacks =
        [("release", request.is_none()), ("review", reviews.iter().any(Option::is_none)), ("policy", policy.is_none())];
    let missing: Vec<&str> = lacks.into_iter().filter_map(|(layer, lacks)| lacks.then_some(layer)).collect();
    let every = || [&request, &policy].into_iter().chain(&reviews).flatten();
    let fields: BTreeSet<&String> = every().flat_map(Map::keys).collect();
    let granted = missing.is_empty();
    let row = |field: &String| {
        let of = |layer: &Option<Layer>| layer.as_ref().and_then(|l| l.get(field)).cloned().unwrap_or(Value::Null);
        let (request, policy) = (of(&request), of(&policy));
        let reviews: Vec<Value> = reviews.iter().map(of).collect();
        let all = std::iter::once(&request).chain(&reviews).chain(std::iter::once(&policy));
        let result = if granted { meet::all(field, all) } else { Value::Null };
        Row { field: field.clone(), request, reviews, policy, result }
    };
    CapabilityRow { capability: name.to_owned(), granted, missing, fields: fields.into_iter().map(row).collect() }
}

fn limits(request: Limits, reviews: &[&Review], policy: Limits) -> Vec<Row> {
    let fields = |limits: Limits| {
        [
            ("memory_mib", limits.memory_mib),
            ("cpu_ms", limits.cpu_ms),
            ("host_calls", limits.host_calls),
            ("output_kib", limits.output_kib),
            ("log_kib", limits.log_kib),
            ("instances", limits.instances),
        ]
    };
    let least = reviews.iter().fold(request.min(policy), |least, review| least.min(review.limits));
    let row = |i: usize, (field, asked): (&str, u32)| Row {
        field: field.to_owned(),
        request: asked.into(),
        reviews: reviews.iter().map(|review| fields(review.limits)[i].1.into()).collect(),
        policy: fields(policy)[i].1.into(),
        result: fields(least)[i].1.into(),
    };
    fields(request).into_iter().enumerate().map(|(i, field)| row(i, field)).collect()
}

#[cfg(test)]
mod tests;
