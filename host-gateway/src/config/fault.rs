//! What is wrong with a configuration: the key, its value, the problem and the mend.
//! All faults are found before any is told.

use serde::Serialize;
use std::fmt;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The key as it is written in the file: `key_path`, `providers.accounts`.
    pub key: String,
    /// What was given; empty when nothing was. Never a secret's bytes.
    pub value: String,
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}

/// Every fault of a configuration, in the order of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(
        &mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        problem: impl fmt::Display,
        mend: impl fmt::Display,
    ) {
        self.0.push(Fault {
            key: key.into(),
            value: value.to_string(),
            problem: problem.to_string(),
            mend: mend.to_string(),
        });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// `{"ok":false,"faults":[…]}`
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "ok": self.is_empty(), "faults": self.0 })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => return write!(f, "the configuration is sound"),
            1 => writeln!(f, "the configuration has a fault:")?,
            n => writeln!(f, "the configuration has {n} faults:")?,
        }
        for fault in &self.0 {
            writeln!(f, "\n  {} = {:?}", fault.key, fault.value)?;
            writeln!(f, "    {}", fault.problem)?;
            writeln!(f, "    mend: {}", fault.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
