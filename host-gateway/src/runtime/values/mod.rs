//! JSON to component values and back, by the component's own types.
//!
//! | WIT | JSON |
//! | --- | --- |
//! | record | object, field names in kebab-case as in WIT |
//! | parameters | object, names in snake_case |
//! | option | the value, or null; a field may also be absent |
//! | enum | string |
//! | flags | array of different strings |
//! | variant | `"case"` without a payload, `{"case": value}` with one |
//! | result | as a variant of `ok` and `err` |
//! | tuple | array of exactly so many |
//! | list | array; `list<u8>` is base64 |
//! | u64, s64 | string, or an integer within ±(2^53−1) |
//! | f32, f64 | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | char | string of one character |
//!
//! Resources, streams, futures, maps and an option of an option have no JSON: [`supported`]
//! refuses them before a plugin is active.

mod lift;
mod lower;
pub mod schema;
#[cfg(test)]
mod tests;

pub use lift::{Param, lift, lift_args};
pub use lower::{LowerError, lower};

use std::fmt;

use wasmtime::component::Type;

/// The largest integer that every reader of JSON holds exactly.
pub(crate) const MAX_SAFE: u64 = (1 << 53) - 1;

/// Where in a JSON document: a pointer (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    fn within<T>(&mut self, step: impl fmt::Display, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        let step = step.to_string();
        self.0.push('/');
        self.0.push_str(&if step.contains(['~', '/']) { step.replace('~', "~0").replace('/', "~1") } else { step });
        let answer = f(self);
        self.0.truncate(length);
        answer
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// A JSON value that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Misfit {
    pub path: Path,
    pub message: String,
}

/// A type that has no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what} can't be written as JSON")]
pub struct Unsupported {
    pub path: Path,
    pub what: &'static str,
}

/// Whether values of this type can be written as JSON.
///
/// # Errors
/// The first part of it that can't.
pub fn supported(ty: &Type) -> Result<(), Unsupported> {
    check(ty, &mut Path::default())
}

fn check(ty: &Type, path: &mut Path) -> Result<(), Unsupported> {
    let refuse = |what, path: &Path| Err(Unsupported { path: path.clone(), what });
    match ty {
        Type::Bool
        | Type::S8
        | Type::U8
        | Type::S16
        | Type::U16
        | Type::S32
        | Type::U32
        | Type::S64
        | Type::U64
        | Type::Float32
        | Type::Float64
        | Type::Char
        | Type::String
        | Type::Enum(_)
        | Type::Flags(_) => Ok(()),
        Type::List(list) => path.within("*", |p| check(&list.ty(), p)),
        Type::Record(record) => record.fields().try_for_each(|f| path.within(f.name, |p| check(&f.ty, p))),
        Type::Tuple(tuple) => tuple.types().enumerate().try_for_each(|(i, ty)| path.within(i, |p| check(&ty, p))),
        Type::Variant(variant) => variant
            .cases()
            .filter_map(|c| Some((c.name.to_owned(), c.ty?)))
            .try_for_each(|(name, ty)| path.within(name, |p| check(&ty, p))),
        Type::Option(option) => match option.ty() {
            Type::Option(_) => refuse("an option of an option", path),
            inner => check(&inner, path),
        },
        Type::Result(result) => [("ok", result.ok()), ("err", result.err())]
            .into_iter()
            .filter_map(|(name, ty)| Some((name, ty?)))
            .try_for_each(|(name, ty)| path.within(name, |p| check(&ty, p))),
        Type::Own(_) | Type::Borrow(_) => refuse("a resource", path),
        Type::Future(_) => refuse("a future", path),
        Type::Stream(_) => refuse("a stream", path),
        Type::ErrorContext => refuse("an error context", path),
        Type::Map(_) => refuse("a map", path),
        Type::FixedLengthList(_) => refuse("a list of fixed length", path),
    }
}
