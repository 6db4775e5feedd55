//! JSON in: arguments become the component's values. Refuses what does not fit exactly:
//! unknown names, missing fields, numbers out of range, fractions for integers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use wasmtime::component::{Type, Val};

use super::{MAX_SAFE, Misfit, Path};

/// One parameter of a verb, by its outside name (snake_case).
#[derive(Debug, Clone)]
pub struct Param {
    pub name: String,
    pub ty: Type,
}

/// A verb's arguments, in the order of its parameters.
///
/// # Errors
/// The first argument that does not fit, with the path to it.
pub fn lift_args(params: &[Param], args: &Map<String, Value>) -> Result<Vec<Val>, Misfit> {
    let mut path = Path::default();
    if let Some(unknown) = args.keys().find(|name| !params.iter().any(|p| p.name == **name)) {
        let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        return path.within(unknown, |p| misfit(p, format!("no such argument; there are: {}", names.join(", "))));
    }
    params.iter().map(|param| path.within(&param.name, |p| field(args.get(&param.name), &param.ty, p))).collect()
}

/// One value.
///
/// # Errors
/// The first part that does not fit, with the path to it.
pub fn lift(value: &Value, ty: &Type) -> Result<Val, Misfit> {
    one(value, ty, &mut Path::default())
}

fn misfit<T>(path: &Path, message: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit { path: path.clone(), message: message.into() })
}

fn wanted<T>(path: &Path, wanted: &str, found: &Value) -> Result<T, Misfit> {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    misfit(path, format!("wanted {wanted}, found {found}"))
}

/// Absent is null for an option and a fault for anything else.
fn field(value: Option<&Value>, ty: &Type, path: &mut Path) -> Result<Val, Misfit> {
    match (value, ty) {
        (Some(value), _) => one(value, ty, path),
        (None, Type::Option(_)) => Ok(Val::Option(None)),
        (None, _) => misfit(path, "missing"),
    }
}

fn one(value: &Value, ty: &Type, path: &mut Path) -> Result<Val, Misfit> {
    match ty {
        Type::Bool => value.as_bool().map_or_else(|| wanted(path, "a boolean", value), |b| Ok(Val::Bool(b))),
        Type::S8 => signed(value, path).map(Val::S8),
        Type::S16 => signed(value, path).map(Val::S16),
        Type::S32 => signed(value, path).map(Val::S32),
        Type::S64 => wide(value, path).map(Val::S64),
        Type::U8 => signed(value, path).map(Val::U8),
        Type::U16 => signed(value, path).map(Val::U16),
        Type::U32 => signed(value, path).map(Val::U32),
        Type::U64 => wide(value, path).map(Val::U64),
        Type::Float32 => float(value, path).map(|f| {
            #[allow(clippy::cast_possible_truncation, reason = "the nearest f32 is what f32 means")]
            Val::Float32(f as f32)
        }),
        Type::Float64 => float(value, path).map(Val::Float64),
        Type::Char => {
            let text = string(value, path)?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Ok(Val::Char(c)),
                _ => misfit(path, "wanted a string of one character"),
            }
        }
        Type::String => Ok(Val::String(string(value, path)?.to_owned())),
        Type::List(list) => elements(value, &list.ty(), path),
        Type::Record(record) => {
            let Value::Object(object) = value else { return wanted(path, "an object", value) };
            if let Some(unknown) = object.keys().find(|name| !record.fields().any(|f| f.name == **name)) {
                return path.within(unknown, |p| misfit(p, "no such field"));
            }
            let fields = record.fields().map(|f| {
                path.within(f.name, |p| field(object.get(f.name), &f.ty, p)).map(|val| (f.name.to_owned(), val))
            });
            fields.collect::<Result<_, _>>().map(Val::Record)
        }
        Type::Tuple(tuple) => {
            let Value::Array(items) = value else { return wanted(path, "an array", value) };
            if items.len() != tuple.types().len() {
                return misfit(path, format!("wanted {} elements, found {}", tuple.types().len(), items.len()));
            }
            let items = items.iter().zip(tuple.types()).enumerate();
            items.map(|(i, (item, ty))| path.within(i, |p| one(item, &ty, p))).collect::<Result<_, _>>().map(Val::Tuple)
        }
        Type::Variant(variant) => {
            let (name, payload) = case(value, path)?;
            match variant.cases().find(|c| c.name == name) {
                Some(c) => Ok(Val::Variant(name.to_owned(), self::payload(name, c.ty.as_ref(), payload, path)?)),
                None => choose(name, variant.cases().map(|c| c.name), path),
            }
        }
        Type::Result(result) => match case(value, path)? {
            ("ok", payload) => Ok(Val::Result(Ok(self::payload("ok", result.ok().as_ref(), payload, path)?))),
            ("err", payload) => Ok(Val::Result(Err(self::payload("err", result.err().as_ref(), payload, path)?))),
            (name, _) => choose(name, ["ok", "err"].into_iter(), path),
        },
        Type::Enum(names) => {
            let name = string(value, path)?;
            match names.names().any(|n| n == name) {
                true => Ok(Val::Enum(name.to_owned())),
                false => choose(name, names.names(), path),
            }
        }
        Type::Option(option) => match value {
            Value::Null => Ok(Val::Option(None)),
            some => Ok(Val::Option(Some(Box::new(one(some, &option.ty(), path)?)))),
        },
        Type::Flags(flags) => {
            let Value::Array(items) = value else { return wanted(path, "an array of names", value) };
            let mut set = Vec::with_capacity(items.len().min(flags.names().len()));
            for (i, item) in items.iter().enumerate() {
                path.within(i, |p| {
                    let name = string(item, p)?;
                    if !flags.names().any(|n| n == name) {
                        return choose(name, flags.names(), p);
                    }
                    if set.iter().any(|seen| seen == name) {
                        return misfit(p, format!("{name:?} is there twice"));
                    }
                    set.push(name.to_owned());
                    Ok(())
                })?;
            }
            Ok(Val::Flags(set))
        }
        Type::Own(_)
        | Type::Borrow(_)
        | Type::Future(_)
        | Type::Stream(_)
        | Type::ErrorContext
        | Type::Map(_)
        | Type::FixedLengthList(_) => misfit(path, "this type has no JSON"),
    }
}

fn string<'v>(value: &'v Value, path: &Path) -> Result<&'v str, Misfit> {
    value.as_str().map_or_else(|| wanted(path, "a string", value), Ok)
}

fn choose<'n, T>(name: &str, names: impl Iterator<Item = &'n str>, path: &Path) -> Result<T, Misfit> {
    misfit(path, format!("{name:?} is not one of {}", names.collect::<Vec<_>>().join(", ")))
}

/// An integer of at most 32 bits.
fn signed<T: TryFrom<i64>>(value: &Value, path: &Path) -> Result<T, Misfit> {
    let Value::Number(number) = value else { return wanted(path, "an integer", value) };
    match number.as_i64().map(T::try_from) {
        Some(Ok(n)) => Ok(n),
        _ => misfit(path, format!("{number} is not an integer in range")),
    }
}

/// An integer of 64 bits: a string, or a number that every reader of JSON holds exactly.
fn wide<T: TryFrom<i64> + std::str::FromStr>(value: &Value, path: &Path) -> Result<T, Misfit> {
    let parsed = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            number.as_i64().filter(|n| n.unsigned_abs() <= MAX_SAFE).and_then(|n| T::try_from(n).ok())
        }
        _ => return wanted(path, "an integer or its decimal digits as a string", value),
    };
    parsed.map_or_else(|| misfit(path, "not an integer in range; past 2^53 it must be a string"), Ok)
}

fn float(value: &Value, path: &Path) -> Result<f64, Misfit> {
    match value {
        Value::Number(number) => number.as_f64().map_or_else(|| misfit(path, "not a number in range"), Ok),
        Value::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => misfit(path, "wanted a number, \"NaN\", \"Infinity\" or \"-Infinity\""),
        },
        _ => wanted(path, "a number", value),
    }
}

fn elements(value: &Value, ty: &Type, path: &mut Path) -> Result<Val, Misfit> {
    if matches!(ty, Type::U8) {
        let text = value.as_str().map_or_else(|| wanted(path, "a base64 string", value), Ok)?;
        return match STANDARD.decode(text) {
            Ok(bytes) => Ok(Val::List(bytes.into_iter().map(Val::U8).collect())),
            Err(error) => misfit(path, format!("not base64: {error}")),
        };
    }
    let Value::Array(items) = value else { return wanted(path, "an array", value) };
    let items = items.iter().enumerate().map(|(i, item)| path.within(i, |p| one(item, ty, p)));
    items.collect::<Result<_, _>>().map(Val::List)
}

/// `"case"` or `{"case": payload}`.
fn case<'v>(value: &'v Value, path: &Path) -> Result<(&'v str, Option<&'v Value>), Misfit> {
    match value {
        Value::String(name) => Ok((name, None)),
        Value::Object(object) => match object.iter().next() {
            Some((name, payload)) if object.len() == 1 => Ok((name, Some(payload))),
            _ => misfit(path, "wanted an object with one case"),
        },
        _ => wanted(path, "a case's name, or an object with one case", value),
    }
}

fn payload(name: &str, ty: Option<&Type>, value: Option<&Value>, path: &mut Path) -> Result<Option<Box<Val>>, Misfit> {
    match (ty, value) {
        (None, None) => Ok(None),
        (Some(ty), Some(value)) => path.within(name, |p| one(value, ty, p)).map(|val| Some(Box::new(val))),
        (None, Some(_)) => misfit(path, format!("the case {name:?} takes no value: write the name alone")),
        (Some(_), None) => misfit(path, format!("the case {name:?} takes a value: {{{name:?}: …}}")),
    }
}
