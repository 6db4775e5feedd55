//! Small values on the command line: durations, `key=value`, ids in paths.

/// Seconds: a plain number, or a duration like `90s`, `15m`, `12h`, `90d`.
///
/// # Errors
/// When it is neither, or zero, or more than a `u32` holds.
pub fn secs(text: &str) -> Result<u32, String> {
    let secs = match text.parse::<u64>() {
        Ok(secs) => secs,
        Err(_) => {
            humantime::parse_duration(text).map_err(|e| format!("{e}; for example 30, 30s, 5m or 12h"))?.as_secs()
        }
    };
    match u32::try_from(secs) {
        Ok(0) => Err("must be at least one second".into()),
        Ok(secs) => Ok(secs),
        Err(_) => Err("is too long".into()),
    }
}

/// `key=value`; the value may hold more `=`.
///
/// # Errors
/// When there is no `=` or no key.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not key=value".into()),
    }
}

/// An id as one segment of a URL's path.
#[must_use]
pub fn segment(id: &str) -> String {
    id.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && id.len() > 2) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_words() {
        assert_eq!(secs("30"), Ok(30));
        assert_eq!(secs("5m"), Ok(300));
        assert_eq!(secs("90d"), Ok(7_776_000));
        for wrong in ["0", "soon", "", "-1", "500 years", "1ms"] {
            assert!(secs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=a").is_err());
    }

    #[test]
    fn ids_stay_one_segment() {
        assert_eq!(segment("web-1.example"), "web-1.example");
        assert_eq!(segment("../x?y#z"), "..%2Fx%3Fy%23z");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
