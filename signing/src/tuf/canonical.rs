//! The bytes under a TUF signature: OLPC canonical JSON. Keys sorted, no space, integers
//! only, and only `"` and `\` escaped. Refuses text beyond printable ASCII, which
//! implementations normalise and escape differently.

use serde_json::Value;

use super::TufError;

/// The canonical form of `value`.
///
/// # Errors
/// [`TufError::Format`] for a fraction, or for text that is not printable ASCII.
pub fn encode(value: &Value) -> Result<Vec<u8>, TufError> {
    let mut out = Vec::with_capacity(1024);
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), TufError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => {
            return Err(TufError::Format { what: format!("number {number} is no integer") });
        }
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => string(text, out)?,
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push(b'{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(key, out)?;
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn string(text: &str, out: &mut Vec<u8>) -> Result<(), TufError> {
    if let Some(other) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(TufError::Format { what: format!("text with {other:?}, which is not printable ASCII") });
    }
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_only_two_characters_escaped() {
        let value = json!({"b": [1, -2, true, null], "a": {"z": "q\"\\/", "A": ""}, "B": {}});
        let text = encode(&value).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"B":{},"a":{"A":"","z":"q\"\\/"},"b":[1,-2,true,null]}"#);
    }

    #[test]
    fn what_others_would_write_differently_is_refused() {
        for bad in [json!(0.5), json!("é"), json!("a\nb"), json!({"\u{0}": 1}), json!("\u{7f}")] {
            assert_eq!(encode(&bad).map_err(|e| e.code()), Err("E_TUF_FORMAT"), "{bad}");
        }
    }
}
