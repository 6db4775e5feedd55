//! An explanation as a table for people: columns request, review, policy, result.

use serde_json::Value;
use std::fmt;

use super::{CapabilityRow, Explanation, Row, VerbRow};
use crate::release::EffectClass;

const HEAD: [&str; 5] = ["", "request", "review", "policy", "grant"];
/// A cell is cut beyond so many characters.
const WIDEST: usize = 44;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.plugin, self.version)?;
        if let Some(refused) = &self.refused {
            writeln!(f, "NOT TAKEN: {refused}")?;
        }
        match self.reviews {
            0 => writeln!(f, "reviews: none narrows it")?,
            n => writeln!(f, "reviews: {n}, and each must allow")?,
        }
        writeln!(f, "\nverbs")?;
        let width = self.verbs.iter().map(|row| row.verb.len()).max().unwrap_or(0);
        for row in &self.verbs {
            writeln!(f, "  {:width$}  {}", row.verb, verb(row))?;
        }
        for row in &self.capabilities {
            writeln!(f, "\n{}: {}", row.capability, capability(row))?;
            table(f, &row.fields)?;
        }
        writeln!(f, "\nlimits of one invocation")?;
        table(f, &self.limits)
    }
}

fn verb(row: &VerbRow) -> String {
    let effect = match row.effect {
        EffectClass::Read => "reads",
        EffectClass::Change => "changes the host",
        EffectClass::Irreversible => "changes the host for good",
    };
    match row {
        VerbRow { runs: false, .. } => format!("{effect}; NOT ALLOWED by a review"),
        VerbRow { approvals: 0, .. } => effect.to_owned(),
        VerbRow { approvals, .. } => {
            format!("{effect}; needs {approvals} approval{}", if *approvals == 1 { "" } else { "s" })
        }
    }
}

fn capability(row: &CapabilityRow) -> String {
    match row.missing.as_slice() {
        [] => "granted".to_owned(),
        ["release", ..] => "allowed, but not asked for".to_owned(),
        missing => format!("NOT GRANTED: not in {}", missing.join(" and ")),
    }
}

fn table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let review = |row: &Row| match row.reviews.as_slice() {
        [] => "-".to_owned(),
        [one] => cell(one),
        some => some.iter().map(cell).collect::<Vec<_>>().join(" and "),
    };
    let mut lines: Vec<[String; 5]> = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        [row.field.clone(), cell(&row.request), review(row), cell(&row.policy), cell(&row.result)].map(|c| cut(&c))
    }));
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for [field, request, review, policy, result] in &lines {
        let [a, b, c, d] = widths;
        let line = format!("  {field:a$}  {request:b$}  {review:c$}  {policy:d$}  {result}");
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(object) => match (object.get("min"), object.get("max"), object.get("all")) {
            (Some(min), Some(max), _) => format!("{min} to {max}"),
            (_, _, Some(Value::Array(lists))) => {
                lists.iter().map(|list| format!("({})", cell(list))).collect::<Vec<_>>().join(" and ")
            }
            _ => object.keys().cloned().collect::<Vec<_>>().join(", "),
        },
        Value::Number(number) => number.to_string(),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}
