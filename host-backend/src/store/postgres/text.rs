//! What PostgreSQL's texts can't hold: the character NUL. Whoever sends one gets U+FFFD
//! instead, in texts and inside JSON; everything else is kept as it is.

use std::borrow::Cow;

/// A text as it can be stored.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// JSON as it can be stored and read as `jsonb`.
pub(super) fn list(json: String) -> String {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json.as_str();
    while let Some(at) = rest.find(NUL) {
        // After an odd number of backslashes it is a backslash and five letters.
        let escaped = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
        out.push_str(&rest[..at]);
        out.push_str(if escaped { NUL } else { "\\ufffd" });
        rest = &rest[at + NUL.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nul_is_replaced() {
        assert_eq!(plain("a\0b"), "a\u{fffd}b");
        assert_eq!(list(r#"["a\u0000b","\\u0000","\\\u0000"]"#.into()), r#"["a\ufffdb","\\u0000","\\\ufffd"]"#);
        let nested = serde_json::to_string(&[serde_json::to_string(&["\0"]).unwrap_or_default()]).unwrap_or_default();
        assert_eq!(list(nested.clone()), nested, "a text of JSON inside JSON is only a text");
    }
}
