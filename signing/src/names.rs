//! Names as they appear outside: plugin ids, verbs and arguments. Refuses anything but
//! short lower-case ASCII, so that no two names look alike and none is a path.

/// A plugin's id: `^[a-z0-9]+(-[a-z0-9]+)*$`, at most 64 characters.
#[must_use]
pub fn is_plugin_id(text: &str) -> bool {
    text.len() <= 64 && words(text, '-')
}

/// A verb or argument: snake_case, begins with a letter, at most 64 characters.
#[must_use]
pub fn is_verb(text: &str) -> bool {
    text.len() <= 64 && words(text, '_') && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// `add-user` → `add_user`. WIT names hold no underscore, so nothing is lost.
#[must_use]
pub fn snake(kebab: &str) -> String {
    kebab.replace('-', "_")
}

/// `add_user` → `add-user`.
#[must_use]
pub fn kebab(snake: &str) -> String {
    snake.replace('_', "-")
}

fn words(text: &str, separator: char) -> bool {
    text.split(separator)
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["a", "accounts", "vpn-2", "9p"] {
            assert!(is_plugin_id(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "../a", "a\0", "аccounts", "a.b", "a ", &"a".repeat(65)]
        {
            assert!(!is_plugin_id(bad), "{bad:?}");
        }
        assert!(is_verb("add_vpn_user") && !is_verb("9p") && !is_verb("add-user") && !is_verb("add__user"));
        assert_eq!(kebab(&snake("add-vpn-user")), "add-vpn-user");
    }
}
