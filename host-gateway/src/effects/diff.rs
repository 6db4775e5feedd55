//! The lines of an effect's diff. Long values are cut and carry their digest, so that two
//! that differ never read the same.

use sha2::{Digest as _, Sha256};
use viworks_protocol::outcome::DiffLine;

/// Longer values are cut.
const MAX_VALUE: usize = 512;

/// What appears.
pub(crate) fn appears(field: &str, after: impl Into<String>) -> DiffLine {
    line(field, None, Some(after.into()))
}

/// What goes.
pub(crate) fn goes(field: &str, before: impl Into<String>) -> DiffLine {
    line(field, Some(before.into()), None)
}

/// What is something else afterwards; nothing where it is the same.
pub(crate) fn changes(field: &str, before: impl Into<String>, after: impl Into<String>) -> Option<DiffLine> {
    let (before, after) = (before.into(), after.into());
    (before != after).then(|| line(field, Some(before), Some(after)))
}

/// A value that may be absent on either side.
pub(crate) fn line(field: &str, before: Option<String>, after: Option<String>) -> DiffLine {
    DiffLine { field: field.to_owned(), before: before.map(cut), after: after.map(cut) }
}

/// The same lines read backwards.
pub(crate) fn reversed(lines: Vec<DiffLine>) -> Vec<DiffLine> {
    lines.into_iter().map(|l| DiffLine { field: l.field, before: l.after, after: l.before }).collect()
}

fn cut(text: String) -> String {
    if text.len() <= MAX_VALUE {
        return text;
    }
    let end = text.floor_char_boundary(MAX_VALUE - 96);
    format!("{}… ({} bytes, sha256 {})", &text[..end], text.len(), hex::encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_bounded_and_still_told_apart() {
        let (a, b) = ("x".repeat(5_000), "x".repeat(4_999) + "y");
        let (a, b) = (appears("f", a), appears("f", b));
        assert_ne!(a, b);
        assert!(a.after.is_some_and(|text| text.len() <= MAX_VALUE + 8));
        assert_eq!(changes("f", "a", "a"), None);
        assert_eq!(reversed(vec![goes("f", "a")]), [appears("f", "a")]);
    }
}
