//! JSON Schema 2020-12 from WIT types. One mapping, the one that the gateway lifts and
//! lowers by: records are objects with kebab-case names, an option is absent or null, a
//! variant is `"case"` or `{"case": value}`, flags are a set of strings, `list<u8>` is
//! base64. Refuses 64-bit integers, handles, streams, futures and nested options.

use serde_json::{Map, Value, json};
use wit_parser::{Resolve, Type, TypeDefKind, TypeId, TypeOwner};

use super::{Error, Lookup};

/// Parts of all schemas of one verb; types that share types grow when written out.
const MAX_PARTS: usize = 2_000;

/// What a schema is for. JSON has no NaN: results say it as text, arguments don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Argument,
    Result,
}

pub(super) struct Schemas<'a> {
    resolve: &'a Resolve,
    docs: &'a Lookup,
    verb: &'a str,
    parts: usize,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(resolve: &'a Resolve, docs: &'a Lookup, verb: &'a str) -> Self {
        Self { resolve, docs, verb, parts: 0 }
    }

    /// Whether it may be left out.
    pub(super) fn is_option(&self, ty: &Type) -> bool {
        matches!(resolved(self.resolve, ty), Some((_, TypeDefKind::Option(_))))
    }

    /// The schema of `ty`; `at` says where it stands, for errors.
    pub(super) fn of(&mut self, ty: &Type, place: Place, at: &str) -> Result<Value, Error> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Error::TooLarge { at: self.verb.to_owned(), max: MAX_PARTS });
        }
        let refuse = |found: &str, instead| Err(Error::Type { at: at.to_owned(), found: found.to_owned(), instead });
        let integer = |min: i64, max: i64| Ok(json!({ "type": "integer", "minimum": min, "maximum": max }));
        match ty {
            Type::Bool => Ok(json!({ "type": "boolean" })),
            Type::U8 => integer(0, u8::MAX.into()),
            Type::U16 => integer(0, u16::MAX.into()),
            Type::U32 => integer(0, u32::MAX.into()),
            Type::S8 => integer(i8::MIN.into(), i8::MAX.into()),
            Type::S16 => integer(i16::MIN.into(), i16::MAX.into()),
            Type::S32 => integer(i32::MIN.into(), i32::MAX.into()),
            Type::U64 | Type::S64 => refuse("a 64-bit integer", "u32, f64 or string"),
            Type::F32 | Type::F64 if place == Place::Argument => Ok(json!({ "type": "number" })),
            Type::F32 | Type::F64 => {
                Ok(json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] }))
            }
            Type::Char => Ok(json!({ "type": "string", "minLength": 1, "maxLength": 1 })),
            Type::String => Ok(json!({ "type": "string" })),
            Type::ErrorContext => refuse("error-context", "failure"),
            Type::Id(id) => {
                let schema = self.defined(*id, place, at)?;
                Ok(described(schema, self.type_docs(*id, None)))
            }
        }
    }

    fn defined(&mut self, id: TypeId, place: Place, at: &str) -> Result<Value, Error> {
        let refuse = |found: &str, instead| Err(Error::Type { at: at.to_owned(), found: found.to_owned(), instead });
        let resolve = self.resolve;
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.of(ty, place, at),
            TypeDefKind::Record(record) => {
                let (mut properties, mut required) = (Map::new(), Vec::new());
                for field in &record.fields {
                    let schema = self.of(&field.ty, place, &format!("{at}.{}", field.name))?;
                    let schema = described(schema, self.type_docs(id, Some(&field.name)));
                    properties.insert(field.name.clone(), schema);
                    if !self.is_option(&field.ty) {
                        required.push(field.name.clone().into());
                    }
                }
                Ok(object(properties, required))
            }
            TypeDefKind::Flags(flags) => {
                let names = flags.flags.iter().map(|flag| flag.name.as_str());
                let items = self.names(id, names);
                Ok(json!({ "type": "array", "items": items, "uniqueItems": true }))
            }
            TypeDefKind::Enum(cases) => Ok(self.names(id, cases.cases.iter().map(|case| case.name.as_str()))),
            TypeDefKind::Tuple(tuple) => {
                let item = |(i, ty)| self.of(ty, place, &format!("{at}.{i}"));
                let items = tuple.types.iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()?;
                let n = items.len();
                Ok(json!({ "type": "array", "prefixItems": items, "items": false, "minItems": n, "maxItems": n }))
            }
            TypeDefKind::Variant(variant) => {
                let mut cases = Vec::new();
                for case in &variant.cases {
                    let schema = self.case(&case.name, case.ty.as_ref(), place, at)?;
                    cases.push(described(schema, self.type_docs(id, Some(&case.name))));
                }
                Ok(json!({ "oneOf": cases }))
            }
            TypeDefKind::Result(result) => {
                let ok = self.case("ok", result.ok.as_ref(), place, at)?;
                Ok(json!({ "oneOf": [ok, self.case("err", result.err.as_ref(), place, at)?] }))
            }
            TypeDefKind::Option(inner) if self.is_option(inner) => {
                refuse("option<option<…>>", "one option, or a variant with a case for each")
            }
            TypeDefKind::Option(inner) => Ok(nullable(self.of(inner, place, at)?)),
            TypeDefKind::List(Type::U8) => Ok(json!({ "type": "string", "contentEncoding": "base64" })),
            TypeDefKind::List(inner) => Ok(json!({ "type": "array", "items": self.of(inner, place, at)? })),
            TypeDefKind::Resource | TypeDefKind::Handle(_) => refuse("a resource", "a record or a name"),
            TypeDefKind::Future(_) => refuse("a future", "the value"),
            TypeDefKind::Stream(_) => refuse("a stream", "a list"),
            TypeDefKind::Map(..) => refuse("a map", "a list of records"),
            TypeDefKind::FixedLengthList(..) => refuse("a list of fixed length", "a tuple or a list"),
            TypeDefKind::Unknown => refuse("an unknown type", "a type of WIT 1.0"),
        }
    }

    /// `"case"` without a payload, `{"case": value}` with one.
    fn case(&mut self, name: &str, ty: Option<&Type>, place: Place, at: &str) -> Result<Value, Error> {
        let Some(ty) = ty else { return Ok(json!({ "const": name })) };
        let payload = self.of(ty, place, &format!("{at}.{name}"))?;
        Ok(object(Map::from_iter([(name.to_owned(), payload)]), vec![name.into()]))
    }

    /// One of several names. Their comments go into one description, since `enum` has no
    /// place for them.
    fn names<'n>(&self, id: TypeId, names: impl Iterator<Item = &'n str>) -> Value {
        let names: Vec<&str> = names.collect();
        let lines: Vec<String> =
            names.iter().filter_map(|name| Some(format!("`{name}`: {}", self.type_docs(id, Some(name))?))).collect();
        let docs = (!lines.is_empty()).then(|| lines.join("\n"));
        described(json!({ "type": "string", "enum": names }), docs)
    }

    /// The comment of a type or of its field or case, as the interface that owns it has it.
    fn type_docs(&self, id: TypeId, item: Option<&str>) -> Option<String> {
        let ty = &self.resolve.types[id];
        let TypeOwner::Interface(owner) = ty.owner else { return None };
        let (owner, name) = (self.resolve.id_of(owner)?, ty.name.as_deref()?);
        match item {
            Some(item) => self.docs.get(&owner, &format!("{name}.{item}")),
            None => self.docs.get(&owner, name),
        }
    }
}

/// An object with these properties and no others.
pub(super) fn object(properties: Map<String, Value>, required: Vec<Value>) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties });
    if let (Value::Object(schema), false) = (&mut schema, required.is_empty()) {
        schema.insert("required".to_owned(), required.into());
    }
    if let Value::Object(schema) = &mut schema {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    schema
}

/// The type behind its aliases.
pub(super) fn resolved<'r>(resolve: &'r Resolve, ty: &Type) -> Option<(TypeId, &'r TypeDefKind)> {
    let id = resolved_id(resolve, ty)?;
    Some((id, &resolve.types[id].kind))
}

pub(super) fn resolved_id(resolve: &Resolve, ty: &Type) -> Option<TypeId> {
    let Type::Id(mut id) = *ty else { return None };
    while let TypeDefKind::Type(Type::Id(inner)) = resolve.types[id].kind {
        id = inner;
    }
    Some(id)
}

/// `schema`, or null.
fn nullable(mut schema: Value) -> Value {
    let Value::Object(keys) = &mut schema else { return schema };
    let Some(Value::String(kind)) = keys.get("type").cloned() else {
        return json!({ "anyOf": [schema, { "type": "null" }] });
    };
    keys.insert("type".to_owned(), json!([kind, "null"]));
    if let Some(Value::Array(values)) = keys.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}

/// `docs` as the description. What is nearer to the reader comes first: a field's
/// comment replaces its type's, but an enum's list of cases stays below.
fn described(mut schema: Value, docs: Option<String>) -> Value {
    if let (Value::Object(keys), Some(docs)) = (&mut schema, docs) {
        let cases = match keys.get("description") {
            Some(Value::String(text)) if text.starts_with('`') => format!("\n{text}"),
            _ => String::new(),
        };
        keys.insert("description".to_owned(), format!("{docs}{cases}").into());
    }
    schema
}
