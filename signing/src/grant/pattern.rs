//! Name patterns in scopes: `*` and `?` wildcards over one flat name. Refuses what a
//! reader could mistake for more (`**`, classes, braces, escapes).

use serde::{Deserialize, Serialize};

/// One pattern: literal characters, `*` for any run, `?` for any one character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Several patterns; a name matches if any does. Empty matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("pattern {0:?} has {1:?}; only `*` and `?` are special, and `**` is not used")]
    Character(String, char),
    #[error("pattern {0:?} is empty or longer than 128 bytes")]
    Length(String),
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > 128 {
            return Err(PatternError::Length(text));
        }
        if text.contains("**") {
            return Err(PatternError::Character(text, '*'));
        }
        match text.chars().find(|c| "[]{}\\!\"'".contains(*c) || c.is_control() || c.is_whitespace()) {
            Some(c) => Err(PatternError::Character(text, c)),
            None => Ok(Self(text)),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl Pattern {
    /// Linear in the name for each star: no backtracking blow-up.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (p, n): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut pi, mut ni, mut star) = (0, 0, None);
        while ni < n.len() {
            if p.get(pi) == Some(&'*') {
                star = Some((pi, ni));
                pi += 1;
            } else if pi < p.len() && (p[pi] == '?' || p[pi] == n[ni]) {
                pi += 1;
                ni += 1;
            } else if let Some((sp, sn)) = star {
                pi = sp + 1;
                ni = sn + 1;
                star = Some((sp, sn + 1));
            } else {
                return false;
            }
        }
        p[pi..].iter().all(|c| *c == '*')
    }
}

impl Patterns {
    /// # Errors
    /// The first malformed pattern.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        texts.into_iter().map(|t| Pattern::try_from(t.to_owned())).collect::<Result<_, _>>().map(Self)
    }

    /// `*`: any name.
    #[must_use]
    pub fn any() -> Self {
        Self(vec![Pattern("*".into())])
    }

    #[must_use]
    pub fn match_any(&self, name: &str) -> bool {
        self.0.iter().any(|p| p.matches(name))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|p| p.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_and_nothing_else_is_special() {
        let yes = [("*", ""), ("a*c", "abbbc"), ("a?c", "abc"), ("dev-*", "dev-"), ("a*b*c", "aXbXbc")];
        let no = [("a?c", "ac"), ("dev-*", "prod-1"), ("abc", "abcd"), ("*x", "y"), ("", "")];
        for (p, n) in yes {
            assert!(Pattern::try_from(p.to_owned()).is_ok_and(|p| p.matches(n)), "{p} {n}");
        }
        for (p, n) in no {
            assert!(!Pattern::try_from(p.to_owned()).is_ok_and(|p| p.matches(n)), "{p} {n}");
        }
        for bad in ["a**", "[a]", "{a,b}", "a b", "a\\b", "!x"] {
            assert!(Pattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
