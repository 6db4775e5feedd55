//! JSON from outside (RFC 8259, I-JSON's rules on top). Refuses what serde_json lets
//! pass or keeps silent about: duplicate keys, a byte order mark, deep nesting, too
//! many bytes, and fractions where a signed statement has none.

use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// Arrays and objects inside each other, at most.
pub const MAX_DEPTH: usize = 64;

/// Whether numbers may have a fraction or an exponent. They have many spellings and are
/// read differently by different languages, so release statements go without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floats {
    Allowed,
    Refused,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{bytes} bytes of JSON, at most {max} are read")]
    TooLarge { bytes: usize, max: usize },
    #[error("JSON begins with a byte order mark")]
    ByteOrderMark,
    #[error("JSON nests deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("key {key:?} appears twice in one object")]
    DuplicateKey { key: String },
    #[error("number {number} has a fraction, an exponent or too many digits")]
    Float { number: String },
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
    #[error("JSON of another shape than wanted")]
    Shape(#[source] serde_json::Error),
}

/// Read one JSON document of at most `max` bytes.
///
/// # Errors
/// See [`Error`]; nothing is built from a document that is refused.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], max: usize, floats: Floats) -> Result<T, Error> {
    check(bytes, max, floats)?;
    serde_json::from_slice(bytes).map_err(Error::Shape)
}

/// Check without building anything: memory is bounded by the keys of the open objects.
///
/// # Errors
/// See [`Error`].
pub fn check(bytes: &[u8], max: usize, floats: Floats) -> Result<(), Error> {
    if bytes.len() > max {
        return Err(Error::TooLarge { bytes: bytes.len(), max });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::ByteOrderMark);
    }
    let fault = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Check { depth: 0, floats, fault: &fault }.deserialize(&mut reader).and_then(|()| reader.end());
    match (fault.into_inner(), read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(Error::Syntax(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// Walks one value. The first fault is kept aside, since serde's errors carry only text.
#[derive(Clone, Copy)]
struct Check<'a> {
    depth: usize,
    floats: Floats,
    fault: &'a RefCell<Option<Error>>,
}

impl Check<'_> {
    fn refuse<E: serde::de::Error>(&self, error: Error) -> E {
        let text = error.to_string();
        self.fault.borrow_mut().get_or_insert(error);
        E::custom(text)
    }

    fn inside<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(Error::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..*self })
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        match self.floats {
            Floats::Allowed => Ok(()),
            Floats::Refused => Err(self.refuse(Error::Float { number: number.to_string() })),
        }
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut seen = HashSet::new();
        // A `String` is read after its escapes: `"a"` and `"\u0061"` are one key.
        while let Some(key) = entries.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(self.refuse(Error::DuplicateKey { key }));
            }
            seen.insert(key);
            entries.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<Value, Error> {
        from_slice(text.as_bytes(), 1 << 16, Floats::Refused)
    }

    #[test]
    fn what_serde_json_lets_pass_is_refused() {
        assert!(matches!(read(r#"{"a":1,"a":1}"#), Err(Error::DuplicateKey { key }) if key == "a"));
        assert!(matches!(read(r#"[{"b":{"a":1,"\u0061":2}}]"#), Err(Error::DuplicateKey { key }) if key == "a"));
        assert!(matches!(read("\u{feff}{}"), Err(Error::ByteOrderMark)));
        assert!(matches!(read("{} {}"), Err(Error::Syntax(_))));
        assert!(matches!(read("{}x"), Err(Error::Syntax(_))));
        assert!(matches!(read(""), Err(Error::Syntax(_))));
        for float in ["1.0", "1e2", "-0", "18446744073709551616", "[0.5]"] {
            assert!(matches!(read(float), Err(Error::Float { .. })), "{float}");
        }
        assert!(check(b"[0.5]", 99, Floats::Allowed).is_ok());
        assert!(matches!(check(b"[1]", 2, Floats::Allowed), Err(Error::TooLarge { bytes: 3, max: 2 })));
        assert!(check(b"\"\xff\"", 99, Floats::Allowed).is_err());
    }

    #[test]
    fn depth_is_counted_over_arrays_and_objects() {
        let nest = |n: usize| "[{\"a\":".repeat(n / 2) + "1" + &"}]".repeat(n / 2);
        assert!(read(&nest(MAX_DEPTH)).is_ok());
        assert!(matches!(read(&nest(MAX_DEPTH + 2)), Err(Error::TooDeep)));
        assert!(matches!(read(&"[".repeat(60_000)), Err(Error::TooDeep)));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_plain_document_reads_as_serde_json_reads_it(value in values()) {
            let text = value.to_string();
            prop_assert_eq!(read(&text).ok(), Some(value));
        }

        #[test]
        fn a_key_given_twice_is_refused_wherever_it_is(value in values(), key in ".{0,8}", wrap in 0usize..5) {
            let key = json!(key).to_string();
            let mut text = format!("{{{key}:{value},{key}:{value}}}");
            for _ in 0..wrap {
                text = format!("[{{\"outer\":{text}}}]");
            }
            let refused = matches!(read(&text), Err(Error::DuplicateKey { .. }));
            prop_assert!(refused);
        }

        #[test]
        fn any_bytes_are_read_or_refused_but_never_more_than_serde_json_reads(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if check(&bytes, 64, Floats::Allowed).is_ok() {
                prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
            }
        }

        #[test]
        fn trailing_data_is_refused(value in values(), tail in "[^ \t\r\n0-9eE.]{1,4}") {
            let text = format!("{value} {tail}");
            prop_assert!(read(&text).is_err());
        }
    }
}
