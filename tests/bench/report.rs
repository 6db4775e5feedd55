//! Figures and how they are shown: medians with their spread, each beside a baseline that
//! was measured in the same run.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// Measurements of one thing.
#[derive(Debug, Clone)]
pub struct Series(Vec<f64>);

impl Series {
    /// Of at least one value; an empty one counts as a single NaN, which no bound accepts.
    pub fn new(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            values.push(f64::NAN);
        }
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub fn micros(times: &[Duration]) -> Self {
        Self::new(times.iter().map(|t| t.as_secs_f64() * 1e6).collect())
    }

    pub fn millis(times: &[Duration]) -> Self {
        Self::new(times.iter().map(|t| t.as_secs_f64() * 1e3).collect())
    }

    pub fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// What is good enough: in words, and as a test over (value, baseline).
pub type Bound = (&'static str, fn(f64, f64) -> bool);

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Value>,
    broken: Vec<String>,
}

impl Table {
    /// Add a figure beside its baseline. `bound` says whether it is good enough.
    pub fn add(
        &mut self,
        name: &str,
        unit: &str,
        value: &Series,
        (baseline, baseline_value): (&str, &Series),
        bound: Option<Bound>,
    ) {
        let (v, b) = (value.median(), baseline_value.median());
        let holds = bound.map(|(_, test)| test(v, b));
        if holds == Some(false) {
            self.broken.push(name.to_owned());
        }
        self.rows.push(json!({
            "name": name, "value": round(v), "unit": unit,
            "min": round(value.min()), "max": round(value.max()), "samples": value.0.len(),
            "baseline": baseline, "baseline_value": round(b),
            "baseline_min": round(baseline_value.min()), "baseline_max": round(baseline_value.max()),
            "ratio": round(v / b),
            "bound": bound.map(|(words, _)| words), "holds": holds,
        }));
    }

    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Print the table and write it as JSON.
    pub fn finish(&self, path: &std::path::Path) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{:<34} {:>12} {:<9} {:>24}  {:<30} {:>12} {:>8}  bound",
            "figure", "median", "unit", "min … max", "beside", "median", "ratio"
        )?;
        for row in &self.rows {
            let number = |key: &str| row[key].as_f64().map_or_else(|| "-".to_owned(), |n| format!("{n}"));
            let verdict = match row["holds"].as_bool() {
                None => String::new(),
                Some(holds) => {
                    format!("{} {}", row["bound"].as_str().unwrap_or_default(), if holds { "ok" } else { "MISSED" })
                }
            };
            writeln!(
                out,
                "{:<34} {:>12} {:<9} {:>24}  {:<30} {:>12} {:>8}  {verdict}",
                row["name"].as_str().unwrap_or_default(),
                number("value"),
                row["unit"].as_str().unwrap_or_default(),
                format!("{} … {}", number("min"), number("max")),
                row["baseline"].as_str().unwrap_or_default(),
                number("baseline_value"),
                number("ratio"),
            )?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&self.rows)?)
    }
}

/// Three digits are all that such a machine gives.
fn round(value: f64) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().ceil() as i32);
    (value * scale).round() / scale
}
