//! A component's own account of itself: world, exact imports, and its verbs with the
//! JSON Schemas that follow from their WIT types. For build and publish: it decodes the
//! whole component. Refuses components without exactly one `…/verbs` export, verbs that
//! don't return the gateway's `failure`, and types that not every guest language holds.

mod docs;
mod schema;

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use wit_parser::decoding::DecodedWasm;
use wit_parser::{Function, FunctionKind, InterfaceId, Resolve, Type, TypeDefKind, TypeOwner, WorldId, WorldItem};

use crate::component;
use crate::names;
pub(crate) use docs::{Docs, Lookup, MAX_DOCS};
use schema::{Place, Schemas};

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The world of the plugin's WIT, if the docs section names it; else what a decoder
    /// calls it: `root:component/root`.
    pub world: String,
    /// Exact names of the imports, sorted.
    pub imports: Vec<String>,
    /// By outside name (snake_case).
    pub verbs: BTreeMap<String, VerbTypes>,
}

/// One verb as its types tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct VerbTypes {
    /// The exported function, in kebab-case.
    pub function: String,
    /// The doc comment, where the docs section has one.
    pub docs: String,
    /// JSON Schema 2020-12 of the arguments.
    pub args: Value,
    /// JSON Schema 2020-12 of the result.
    pub result: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Component(#[from] component::Error),
    #[error("the component does not decode: {0}")]
    Decode(String),
    #[error("a WIT package, not a component")]
    WitPackage,
    #[error("no exported interface is called \"verbs\"; exported are {0}")]
    NoVerbs(String),
    #[error("more than one exported interface is called \"verbs\": {0}")]
    ManyVerbs(String),
    #[error("interface {0} has no functions, so there is no verb")]
    EmptyVerbs(String),
    #[error("{at}: {found} can't be used in a verb; use {instead}")]
    Type { at: String, found: String, instead: &'static str },
    #[error("{at}: a verb returns result<T, failure> with the failure of viworks:gateway/types@1")]
    Failure { at: String },
    #[error("{at}: not a name of lower-case words that begins with a letter, at most 64 characters")]
    Name { at: String },
    #[error("{at}: the types are too large for a schema (more than {max} parts)")]
    TooLarge { at: String, max: usize },
    #[error("the docs section is malformed")]
    Docs(#[source] crate::strict_json::Error),
}

/// Describe the component in `bytes`.
///
/// # Errors
/// Says what of the component can't be a plugin, and where.
pub fn describe(bytes: &[u8]) -> Result<Description, Error> {
    let outline = component::outline(bytes)?;
    let docs = outline.docs.map(Docs::decode).transpose()?.unwrap_or_default();
    let world = docs.world.clone();
    let decoded = Decoded::of(bytes)?;
    Ok(Description {
        world: world.unwrap_or_else(|| "root:component/root".to_owned()),
        imports: outline.imports,
        verbs: decoded.verbs(&Lookup::new(docs))?,
    })
}

/// A component's types, and its verbs interface among them.
pub(crate) struct Decoded {
    resolve: Resolve,
    verbs: InterfaceId,
    /// For example `viworks:accounts/verbs@1.0.0`.
    pub(crate) name: String,
}

impl Decoded {
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, Error> {
        component::preamble(bytes)?;
        match wit_component::decode(bytes) {
            Ok(DecodedWasm::Component(resolve, world)) => {
                let (verbs, name) = find_verbs(&resolve, world)?;
                Ok(Self { resolve, verbs, name })
            }
            Ok(DecodedWasm::WitPackage(..)) => Err(Error::WitPackage),
            Err(error) => Err(Error::Decode(format!("{error:#}"))),
        }
    }

    /// Derive every verb, asking `docs` for the comment of each thing on the way.
    pub(crate) fn verbs(&self, docs: &Lookup) -> Result<BTreeMap<String, VerbTypes>, Error> {
        let functions = &self.resolve.interfaces[self.verbs].functions;
        if functions.is_empty() {
            return Err(Error::EmptyVerbs(self.name.clone()));
        }
        let mut verbs = BTreeMap::new();
        for (name, function) in functions {
            verbs.insert(names::snake(name), self.verb(name, function, docs)?);
        }
        Ok(verbs)
    }

    fn verb(&self, name: &str, function: &Function, docs: &Lookup) -> Result<VerbTypes, Error> {
        if function.kind != FunctionKind::Freestanding {
            let found = "an async function or a resource's method".to_owned();
            return Err(Error::Type { at: name.to_owned(), found, instead: "a plain function" });
        }
        if !names::is_verb(&names::snake(name)) {
            return Err(Error::Name { at: name.to_owned() });
        }
        let mut schemas = Schemas::new(&self.resolve, docs, name);
        let result = self.result(name, function.result.as_ref())?;
        Ok(VerbTypes {
            function: name.to_owned(),
            docs: docs.get(&self.name, name).unwrap_or_default(),
            args: args(&mut schemas, name, function)?,
            result: match result {
                Some(ty) => schemas.of(&ty, Place::Result, &format!("{name} -> result"))?,
                None => serde_json::json!({ "type": "null" }),
            },
        })
    }

    /// The `T` of `result<T, failure>`.
    fn result(&self, at: &str, ty: Option<&Type>) -> Result<Option<Type>, Error> {
        let failure = || Error::Failure { at: at.to_owned() };
        let Some((_, TypeDefKind::Result(result))) = ty.and_then(|ty| schema::resolved(&self.resolve, ty)) else {
            return Err(failure());
        };
        let error = result.err.as_ref().and_then(|ty| schema::resolved_id(&self.resolve, ty)).ok_or_else(failure)?;
        let error = &self.resolve.types[error];
        let TypeOwner::Interface(owner) = error.owner else { return Err(failure()) };
        let owner = self.resolve.id_of(owner).unwrap_or_default();
        let gateway = owner.strip_prefix("viworks:gateway/types@").is_some_and(|version| version.starts_with("1."));
        if error.name.as_deref() == Some("failure") && gateway { Ok(result.ok) } else { Err(failure()) }
    }
}

fn args(schemas: &mut Schemas<'_>, verb: &str, function: &Function) -> Result<Value, Error> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for param in &function.params {
        let at = format!("{verb}({})", param.name);
        let name = names::snake(&param.name);
        if !names::is_verb(&name) {
            return Err(Error::Name { at });
        }
        if !schemas.is_option(&param.ty) {
            required.push(Value::from(name.clone()));
        }
        properties.insert(name, schemas.of(&param.ty, Place::Argument, &at)?);
    }
    Ok(schema::object(properties, required))
}

/// The one exported instance whose name before `@` ends in `/verbs`. Other exports are
/// what guest languages add for themselves.
fn find_verbs(resolve: &Resolve, world: WorldId) -> Result<(InterfaceId, String), Error> {
    let exports = resolve.worlds[world].exports.iter();
    let named: Vec<_> = exports.map(|(key, item)| (resolve.name_world_key(key), item)).collect();
    let is_verbs = |name: &str| name.split('@').next().is_some_and(|name| name.ends_with("/verbs"));
    let found: Vec<_> = named
        .iter()
        .filter_map(|(name, item)| match item {
            WorldItem::Interface { id, .. } if is_verbs(name) => Some((*id, name)),
            _ => None,
        })
        .collect();
    match found.as_slice() {
        [(id, name)] => Ok((*id, (*name).clone())),
        [] if named.is_empty() => Err(Error::NoVerbs("none at all".to_owned())),
        [] => Err(Error::NoVerbs(named.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", "))),
        many => Err(Error::ManyVerbs(many.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", "))),
    }
}

#[cfg(test)]
mod tests;
