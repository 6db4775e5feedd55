//! Packing: the doc comments of a plugin's WIT go into the component as a custom section,
//! before it is signed. Deterministic, and repeatable: an older section is replaced.
//! Refuses WIT that does not belong to the component.

use std::path::{Path, PathBuf};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wit_parser::{Docs as Comment, InterfaceId, Resolve, TypeDefKind, WorldItem};

use crate::component::{self, DOCS_SECTION, MAX_COMPONENT};
use crate::describe::{self, Decoded, Docs, Lookup, MAX_DOCS};
use crate::strict_json::{self, Floats};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Component(#[from] component::Error),
    #[error(transparent)]
    Describe(#[from] describe::Error),
    #[error("WIT of {path}: {message}")]
    Wit { path: PathBuf, message: String },
    #[error("the WIT has no interface {0}, which the component exports")]
    Foreign(String),
    #[error("the docs can't be written as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("the docs are too large")]
    TooLarge(#[source] strict_json::Error),
    #[error("with its docs the component has more than {MAX_COMPONENT} bytes")]
    ComponentTooLarge,
}

/// `component` with the docs of its verbs and of the types that they use. `wit_dirs`
/// hold WIT packages, the plugin's own and those it uses, in any order; a `deps` folder
/// inside one is read too.
///
/// # Errors
/// See [`Error`].
pub fn pack<P: AsRef<Path>>(component: &[u8], wit_dirs: &[P]) -> Result<Vec<u8>, Error> {
    let outline = component::outline(component)?;
    let decoded = Decoded::of(component)?;
    let asked = Lookup::default();
    decoded.verbs(&asked)?;

    let resolve = read(wit_dirs)?;
    let verbs = interface(&resolve, &decoded.name).ok_or_else(|| Error::Foreign(decoded.name.clone()))?;
    let mut docs = Docs::default();
    docs.world = world_of(&resolve, verbs);
    for (owner, item) in asked.asked() {
        let comment = interface(&resolve, &owner).and_then(|id| comment(&resolve, id, &item));
        if let Some(text) = comment {
            docs.insert(&owner, &item, text.trim());
        }
    }
    let section = serde_json::to_vec(&docs).map_err(Error::Encode)?;
    strict_json::check(&section, MAX_DOCS, Floats::Refused).map_err(Error::TooLarge)?;

    let mut packed = match outline.docs_at {
        Some(old) => [&component[..old.start], &component[old.end..]].concat(),
        None => component.to_vec(),
    };
    CustomSection { name: DOCS_SECTION.into(), data: section.into() }.append_to_component(&mut packed);
    if packed.len() > MAX_COMPONENT { Err(Error::ComponentTooLarge) } else { Ok(packed) }
}

/// All packages in one resolve. A package may come before what it uses: those that fail
/// are tried again as long as others succeed.
fn read<P: AsRef<Path>>(dirs: &[P]) -> Result<Resolve, Error> {
    let mut resolve = Resolve::default();
    let mut waiting: Vec<&Path> = dirs.iter().map(AsRef::as_ref).collect();
    while !waiting.is_empty() {
        let (mut failed, mut first) = (Vec::new(), None);
        for dir in &waiting {
            // A failed push leaves a resolve half-made.
            let mut trial = resolve.clone();
            match trial.push_path(dir) {
                Ok(_) => resolve = trial,
                Err(error) => {
                    first.get_or_insert(Error::Wit { path: dir.to_path_buf(), message: format!("{error:#}") });
                    failed.push(*dir);
                }
            }
        }
        match first {
            Some(error) if failed.len() == waiting.len() => return Err(error),
            _ => waiting = failed,
        }
    }
    Ok(resolve)
}

fn interface(resolve: &Resolve, name: &str) -> Option<InterfaceId> {
    resolve.interfaces.iter().map(|(id, _)| id).find(|id| resolve.id_of(*id).as_deref() == Some(name))
}

/// The one world that exports these verbs; none if several do.
fn world_of(resolve: &Resolve, verbs: InterfaceId) -> Option<String> {
    let exports = |item: &WorldItem| matches!(item, WorldItem::Interface { id, .. } if *id == verbs);
    let mut worlds = resolve.worlds.iter().filter(|(_, world)| world.exports.values().any(exports));
    match (worlds.next(), worlds.next()) {
        (Some((_, world)), None) => Some(resolve.id_of_name(world.package?, &world.name)),
        _ => None,
    }
}

/// The comment of `function`, `type`, or `type.field`.
fn comment<'r>(resolve: &'r Resolve, interface: InterfaceId, item: &str) -> Option<&'r str> {
    let interface = &resolve.interfaces[interface];
    let text = |docs: &'r Comment| docs.contents.as_deref();
    let Some((ty, part)) = item.split_once('.') else {
        return match interface.functions.get(item) {
            Some(function) => text(&function.docs),
            None => text(&resolve.types[*interface.types.get(item)?].docs),
        };
    };
    match &resolve.types[*interface.types.get(ty)?].kind {
        TypeDefKind::Record(record) => record.fields.iter().find(|f| f.name == part).and_then(|f| text(&f.docs)),
        TypeDefKind::Flags(flags) => flags.flags.iter().find(|f| f.name == part).and_then(|f| text(&f.docs)),
        TypeDefKind::Variant(variant) => variant.cases.iter().find(|c| c.name == part).and_then(|c| text(&c.docs)),
        TypeDefKind::Enum(cases) => cases.cases.iter().find(|c| c.name == part).and_then(|c| text(&c.docs)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
