//! Whether a signed JSON Schema describes a type of the component itself. Comments, bounds
//! and patterns may be there besides, since a manifest may narrow; names, kinds and what is
//! required may not differ.

use serde_json::Value;
use wasmtime::component::Type;

use super::Path;

/// Where a schema and a type part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: the component has {wanted}")]
pub struct Apart {
    pub path: Path,
    pub wanted: String,
}

/// # Errors
/// The first place where they part.
pub fn describes(schema: &Value, ty: &Type) -> Result<(), Apart> {
    compare(schema, ty, &mut Path::default())
}

fn compare(schema: &Value, ty: &Type, path: &mut Path) -> Result<(), Apart> {
    match ty {
        Type::Option(option) => {
            let inner = schema["anyOf"].as_array().filter(|any| any.len() == 2 && any[1]["type"] == "null");
            match inner {
                Some(any) => compare(&any[0], &option.ty(), path),
                None if is_nullable(schema) => compare(schema, &option.ty(), path),
                None => apart(path, "something that may be null"),
            }
        }
        Type::Bool => kind(schema, "boolean", path),
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 => kind(schema, "integer", path),
        Type::Float32 | Type::Float64 => match schema["anyOf"].as_array() {
            Some(any) => kind(any.first().unwrap_or(&Value::Null), "number", path),
            None => kind(schema, "number", path),
        },
        Type::Char | Type::String => kind(schema, "string", path),
        Type::Enum(names) => {
            kind(schema, "string", path)?;
            some_of(&schema["enum"], names.names(), path)
        }
        Type::Flags(flags) => {
            kind(schema, "array", path)?;
            path.within("*", |path| some_of(&schema["items"]["enum"], flags.names(), path))
        }
        Type::List(list) if list.ty() == Type::U8 => match schema["contentEncoding"].as_str() {
            Some("base64") => kind(schema, "string", path),
            _ => apart(path, "bytes, in base64"),
        },
        Type::List(list) => {
            kind(schema, "array", path)?;
            path.within("*", |path| compare(&schema["items"], &list.ty(), path))
        }
        Type::Tuple(tuple) => {
            kind(schema, "array", path)?;
            let items = schema["prefixItems"].as_array().map(Vec::as_slice).unwrap_or_default();
            if items.len() != tuple.types().len() {
                return apart(path, format!("a tuple of {}", tuple.types().len()));
            }
            let mut each = items.iter().zip(tuple.types()).enumerate();
            each.try_for_each(|(i, (item, ty))| path.within(i, |path| compare(item, &ty, path)))
        }
        Type::Record(record) => {
            let fields = record.fields().map(|field| (field.name.to_owned(), field.ty));
            object(schema, fields.collect(), path)
        }
        Type::Variant(variant) => {
            let cases = variant.cases().map(|case| (case.name.to_owned(), case.ty));
            one_of(schema, &cases.collect::<Vec<_>>(), path)
        }
        Type::Result(result) => one_of(schema, &[("ok".into(), result.ok()), ("err".into(), result.err())], path),
        _ => apart(path, "a type that has no JSON"),
    }
}

/// The properties of an object: these, no others, and all required that are no options.
///
/// # Errors
/// The first place where they part.
pub fn object(schema: &Value, fields: Vec<(String, Type)>, path: &mut Path) -> Result<(), Apart> {
    kind(schema, "object", path)?;
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    if properties.len() != fields.len() || schema["additionalProperties"] != false {
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        return apart(path, format!("exactly {}", if names.is_empty() { "nothing".into() } else { names.join(", ") }));
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, ty) in fields {
        path.within(&name, |path| {
            let Some(schema) = properties.get(&name) else { return apart(path, "it") };
            match (matches!(ty, Type::Option(_)), required.contains(&name.as_str())) {
                (true, true) => apart(path, "it as an option"),
                (false, false) => apart(path, "it, and requires it"),
                _ => compare(schema, &ty, path),
            }
        })?;
    }
    Ok(())
}

fn one_of(schema: &Value, cases: &[(String, Option<Type>)], path: &mut Path) -> Result<(), Apart> {
    // Where null is allowed as well, the option took the last alternative away already.
    let found = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    if found.len() != cases.len() {
        let names: Vec<&str> = cases.iter().map(|(name, _)| name.as_str()).collect();
        return apart(path, format!("the cases {}", names.join(", ")));
    }
    for (schema, (name, ty)) in found.iter().zip(cases) {
        path.within(name, |path| match ty {
            None if schema["const"] == name.as_str() => Ok(()),
            None => apart(path, "this case without a value"),
            Some(ty) => {
                kind(schema, "object", path)?;
                compare(&schema["properties"][name], ty, path)
            }
        })?;
    }
    Ok(())
}

fn kind(schema: &Value, wanted: &'static str, path: &mut Path) -> Result<(), Apart> {
    let found = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        other => other.as_str(),
    };
    if found == Some(wanted) { Ok(()) } else { apart(path, format!("a JSON {wanted}")) }
}

fn is_nullable(schema: &Value) -> bool {
    schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
}

/// A manifest may leave cases out, never add one.
fn some_of<'a>(listed: &Value, names: impl Iterator<Item = &'a str>, path: &mut Path) -> Result<(), Apart> {
    let names: Vec<&str> = names.collect();
    let known = |value: &Value| value.is_null() || value.as_str().is_some_and(|name| names.contains(&name));
    match listed.as_array() {
        Some(listed) if listed.iter().all(known) => Ok(()),
        _ => apart(path, format!("one of {}", names.join(", "))),
    }
}

fn apart<T>(path: &Path, wanted: impl Into<String>) -> Result<T, Apart> {
    Err(Apart { path: path.clone(), wanted: wanted.into() })
}
