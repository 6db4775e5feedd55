//! Faults of what a plugin's author wrote: every one names the key, the value and what
//! would be valid, and all of them are reported at once.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key's path, for example `verbs.add_user.effect`.
    pub key: String,
    /// What stands there.
    pub value: String,
    /// What may stand there.
    pub wanted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}; wanted {}", self.key, self.value, self.wanted)
    }
}

/// At least one fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, key: impl Into<String>, value: impl Into<String>, wanted: impl Into<String>) {
        self.0.push(Fault { key: key.into(), value: value.into(), wanted: wanted.into() });
    }

    /// `value` if there is no fault.
    ///
    /// # Errors
    /// All faults.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let line = if i == 0 { "" } else { "\n" };
            write!(f, "{line}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// `a, b or c`
pub(crate) fn choices<I: IntoIterator<Item = S>, S: AsRef<str>>(names: I) -> String {
    let names: Vec<S> = names.into_iter().collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}
