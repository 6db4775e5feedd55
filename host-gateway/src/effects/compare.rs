//! What the active release did beside what a shadow of it planned: equal, or where it
//! departs. Pure. Compares what plans bind (kind, summary, diff, irreversible) and how both
//! ended; never results, since a plan's answer is plausible and a read's is of a moment.

use viworks_protocol::outcome::{DiffLine, EffectReport, EffectState, Outcome, Report};
use viworks_protocol::shadow::{Departure, Shadow, Verdict};

use super::plan::digest;

/// Failures of an invocation that say nothing of what the release would have done next.
const CUT: [&str; 8] =
    ["timeout", "cancelled", "trap", "limit", "plan-departed", "interrupted", "revoked", "unavailable"];

/// A shadow that ran to its end.
#[derive(Debug)]
pub struct Planned {
    pub report: Report,
    /// The first effect whose answer only doing it could tell: what follows it is no measure.
    pub untold: Option<usize>,
}

/// The verdict on the shadow with this digest.
#[must_use]
pub fn compare(digest_of: &str, active: &Report, planned: &Planned) -> Shadow {
    let did: Vec<EffectReport> = active.effects.iter().map(foreseen).collect();
    let would = &planned.report.effects;
    let mut shadow = Shadow {
        digest: digest_of.to_owned(),
        verdict: Verdict::Equal,
        code: None,
        message: None,
        plan: Some(digest(would)),
        active: Some(digest(&did)),
        departures: Vec::new(),
        more: 0,
        cost: planned.report.cost,
    };
    // As far as both went by their own will.
    let cut = is_cut(active);
    let told = planned.untold.map_or(usize::MAX, |at| at + 1);
    let most = if cut { told.min(did.len()) } else { told };
    let (did, would) = (&did[..did.len().min(most)], &would[..would.len().min(most)]);
    let failure = planned.report.failure.as_ref().filter(|_| planned.untold.is_none());
    if let (Some(failure), false) = (failure, cut && would.len() == did.len()) {
        let same = active.failure.as_ref().is_some_and(|own| own.code == failure.code);
        if active.outcome == Outcome::Succeeded || (cut && !same) {
            shadow.verdict = Verdict::Failed;
            (shadow.code, shadow.message) = (Some(failure.code.clone()), Some(failure.message.clone()));
            return shadow.bounded();
        }
    }
    let mut departures = departures(did, would);
    if planned.untold.is_none() && !cut && end(active) != end(&planned.report) {
        let (active, shadow) = (Some(end(active).to_owned()), Some(end(&planned.report).to_owned()));
        departures.push(Departure { effect: 0, field: "outcome".into(), active, shadow });
    }
    if !departures.is_empty() {
        shadow.verdict = Verdict::Departed;
    }
    shadow.departures = departures;
    shadow.bounded()
}

/// An effect of an apply as a plan would have listed it.
fn foreseen(effect: &EffectReport) -> EffectReport {
    EffectReport { state: EffectState::Planned, ..effect.clone() }
}

/// Whether it ended for a reason that a plan can't share: the host failed an effect, or
/// somebody ended it.
fn is_cut(active: &Report) -> bool {
    let Some(failure) = &active.failure else { return false };
    let failed = active.effects.iter().any(|e| matches!(e.state, EffectState::Failed | EffectState::Unknown));
    failed || CUT.contains(&failure.code.as_str())
}

fn end(report: &Report) -> &str {
    report.failure.as_ref().map_or(report.outcome.as_str(), |failure| failure.code.as_str())
}

fn departures(did: &[EffectReport], would: &[EffectReport]) -> Vec<Departure> {
    let mut found = Vec::new();
    for at in 0..did.len().max(would.len()) {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let mut note = |field: &str, active: Option<String>, shadow: Option<String>| {
            found.push(Departure { effect: number, field: field.to_owned(), active, shadow });
        };
        match (did.get(at), would.get(at)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if a.kind == b.kind => {
                let fields = fields(&a.diff, &b.diff);
                // What the summary says that no field does.
                if fields.is_empty() && a.summary != b.summary {
                    note("summary", Some(a.summary.clone()), Some(b.summary.clone()));
                }
                for (field, active, shadow) in fields {
                    note(field, active, shadow);
                }
                if a.irreversible != b.irreversible {
                    note("irreversible", Some(a.irreversible.to_string()), Some(b.irreversible.to_string()));
                }
            }
            (a, b) => note("summary", a.map(|a| a.summary.clone()), b.map(|b| b.summary.clone())),
        }
    }
    found
}

/// Lines of two diffs that differ, by field: what each says in words.
fn fields<'a>(a: &'a [DiffLine], b: &'a [DiffLine]) -> Vec<(&'a str, Option<String>, Option<String>)> {
    let mut found = Vec::new();
    let mut left: Vec<&DiffLine> = b.iter().collect();
    let mut unmatched = Vec::new();
    for line in a {
        match left.iter().position(|other| *other == line) {
            Some(at) => drop(left.remove(at)),
            None => unmatched.push(line),
        }
    }
    for line in unmatched {
        let other = left.iter().position(|other| other.field == line.field).map(|at| left.remove(at));
        found.push((line.field.as_str(), Some(words(line)), other.map(words)));
    }
    found.extend(left.into_iter().map(|line| (line.field.as_str(), None, Some(words(line)))));
    found
}

fn words(line: &DiffLine) -> String {
    match (&line.before, &line.after) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (None, Some(after)) => after.clone(),
        (Some(before), None) => format!("{before} goes"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests;
