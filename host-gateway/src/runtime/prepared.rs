//! A component made ready once: linked against exactly what its grant allows, its verbs
//! found and their types checked. Refuses a component that imports anything else, and
//! says which import, which verbs want it and what would mend it.

use std::collections::BTreeMap;
use std::sync::Arc;

use viworks_signing::grant::Grant;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, Type};

use super::engine::{MAX_MEMORIES, MAX_TABLES, Runtime};
use super::sealed;
use super::values::{self, Param};
use crate::capabilities::{Call, WORLDS, World, versions};

const PACKAGE: &str = "viworks:gateway/";

/// A component that can be invoked. Cheap to clone.
#[derive(Clone)]
pub struct Prepared {
    pub(super) runtime: Arc<Runtime>,
    pub(super) pre: InstancePre<Call>,
    verbs: Arc<BTreeMap<String, Verb>>,
}

/// One exported function. Its error type is the gateway's `failure`.
#[derive(Debug, Clone)]
pub struct Verb {
    /// The WIT function, in kebab-case.
    pub function: String,
    pub params: Vec<Param>,
    /// The type of the result, if it has one.
    pub ok: Option<Type>,
    pub(super) export: ComponentExportIndex,
}

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("{verbs} need {import}, which is not granted: {mend}")]
    NotGranted { import: String, verbs: String, mend: String },
    #[error("{verbs} need {import}, which this gateway does not have: {mend}")]
    NoSuchImport { import: String, verbs: String, mend: String },
    #[error("it imports {first} and {second}: one plugin is written against one major")]
    TwoMajors { first: String, second: String },
    #[error("the component needs modules from outside, so what it takes can't be told")]
    Resources,
    #[error("the component has {memories} memories and {tables} tables; at most {MAX_MEMORIES} and {MAX_TABLES}")]
    TooMany { memories: u32, tables: u32 },
    #[error("the component exports {found} interfaces called `verbs`; exactly one is wanted")]
    Verbs { found: usize },
    #[error("verb {verb}: {reason}")]
    Signature { verb: String, reason: String },
    #[error("the component does not link")]
    Link(#[source] wasmtime::Error),
}

impl Prepared {
    /// Link `component` against what `grant` allows of the API's major that it imports.
    ///
    /// # Errors
    /// Says what is wrong with the component or missing in the grant.
    pub fn new(runtime: &Arc<Runtime>, component: &Component, grant: &Grant) -> Result<Self, PrepareError> {
        Self::against(WORLDS, runtime, component, grant)
    }

    /// The same with these majors on offer.
    pub(crate) fn against(
        worlds: &[World],
        runtime: &Arc<Runtime>,
        component: &Component,
        grant: &Grant,
    ) -> Result<Self, PrepareError> {
        let major = imported_major(component)?;
        let world = worlds.iter().find(|world| major.is_none_or(|major| world.major == major));
        // With a major that is not on offer, each import of it is refused by name.
        let failure = world.map_or(&[] as &[&str], |world| world.failure);
        let verbs = find_verbs(component, world.map(|_| failure))?;
        let resources = component.resources_required().ok_or(PrepareError::Resources)?;
        if resources.num_memories > MAX_MEMORIES || resources.num_tables > MAX_TABLES {
            return Err(PrepareError::TooMany { memories: resources.num_memories, tables: resources.num_tables });
        }
        check_imports(component, grant, &verbs, world, worlds)?;

        let mut linker = Linker::new(runtime.engine());
        sealed::add_to_linker(&mut linker).map_err(PrepareError::Link)?;
        for (_, granted, add) in world.map(|world| world.interfaces).unwrap_or_default() {
            if granted(grant) {
                add(&mut linker).map_err(PrepareError::Link)?;
            }
        }
        let pre = linker.instantiate_pre(component).map_err(PrepareError::Link)?;
        Ok(Self { runtime: runtime.clone(), pre, verbs: Arc::new(verbs) })
    }

    /// The verbs by their outside name (snake_case).
    #[must_use]
    pub fn verbs(&self) -> &BTreeMap<String, Verb> {
        &self.verbs
    }

    /// For benchmarks beside the bare engine.
    #[must_use]
    pub fn component(&self) -> &Component {
        self.pre.component()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("verbs", &self.verbs.keys()).finish_non_exhaustive()
    }
}

/// The names of everything that a component imports, sorted.
pub(crate) fn imports(component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let mut names: Vec<String> = ty.imports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

/// An import of the gateway's API: interface, major, minor.
fn of_gateway(import: &str) -> Option<(&str, u32, u32)> {
    let (name, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let mut parts = version.split('.').map(str::parse);
    let (major, minor, patch) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let _: u32 = patch;
    parts.next().is_none().then_some((name, major, minor))
}

/// The one major of the gateway's API that a component imports, if it imports any of it.
fn imported_major(component: &Component) -> Result<Option<u32>, PrepareError> {
    let mut found: Option<(String, u32)> = None;
    for import in imports(component) {
        let Some((_, major, _)) = of_gateway(&import) else { continue };
        match &found {
            Some((first, other)) if *other != major => {
                return Err(PrepareError::TwoMajors { first: first.clone(), second: import });
            }
            Some(_) => {}
            None => found = Some((import, major)),
        }
    }
    Ok(found.map(|(_, major)| major))
}

fn check_imports(
    component: &Component,
    grant: &Grant,
    verbs: &BTreeMap<String, Verb>,
    world: Option<&World>,
    worlds: &[World],
) -> Result<(), PrepareError> {
    let interfaces = world.map(|world| world.interfaces).unwrap_or_default();
    for import in imports(component) {
        if sealed::allows(&import) {
            continue;
        }
        let verbs = verbs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = of_gateway(&import)
            .filter(|(_, _, minor)| world.is_some_and(|world| *minor <= world.minor))
            .and_then(|(name, ..)| interfaces.iter().find(|(known, ..)| *known == name));
        match known {
            Some((_, granted, _)) if granted(grant) => {}
            Some((name, ..)) => {
                let mend = format!(
                    "the plugin must request [capabilities.{name}], and the host's policy must have a table of the same name"
                );
                return Err(PrepareError::NotGranted { import, verbs, mend });
            }
            None => {
                let known: Vec<&str> = interfaces.iter().map(|(name, ..)| *name).collect();
                let mend = format!(
                    "there are {PACKAGE}{{{}}} in {}, and of WASI clocks, random and stdio",
                    known.join(","),
                    versions(worlds)
                );
                return Err(PrepareError::NoSuchImport { import, verbs, mend });
            }
        }
    }
    Ok(())
}

/// The functions of the one exported instance whose name before `@` ends in `/verbs`.
/// `failure`: the cases that their error type has, where they are known.
fn find_verbs(component: &Component, failure: Option<&[&str]>) -> Result<BTreeMap<String, Verb>, PrepareError> {
    let engine = component.engine();
    let ty = component.component_type();
    let mut interfaces = ty.exports(engine).filter_map(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(instance) if is_verbs(name) => Some((name, instance)),
        _ => None,
    });
    let (Some((name, instance)), 0) = (interfaces.next(), interfaces.count()) else {
        let found = ty.exports(engine).filter(|(name, _)| is_verbs(name)).count();
        return Err(PrepareError::Verbs { found });
    };
    let index = component.get_export_index(None, name).ok_or(PrepareError::Verbs { found: 0 })?;
    let mut verbs = BTreeMap::new();
    for (function, item) in instance.exports(engine) {
        let ComponentItem::ComponentFunc(func) = item.ty else { continue };
        let verb = outside_name(function);
        let refuse = |reason: String| PrepareError::Signature { verb: verb.clone(), reason };
        let export = component
            .get_export_index(Some(&index), function)
            .ok_or_else(|| refuse("it is exported but can't be found".into()))?;
        let (params, ok) = signature(&func, failure).map_err(refuse)?;
        verbs.insert(verb.clone(), Verb { function: function.to_owned(), params, ok, export });
    }
    if verbs.is_empty() { Err(PrepareError::Verbs { found: 0 }) } else { Ok(verbs) }
}

fn is_verbs(export: &str) -> bool {
    export.split('@').next().is_some_and(|name| name.ends_with("/verbs"))
}

/// `ssh-keys` is `ssh_keys` outside.
pub(crate) fn outside_name(kebab: &str) -> String {
    kebab.replace('-', "_")
}

type Signature = (Vec<Param>, Option<Type>);

fn signature(func: &ComponentFunc, failure: Option<&[&str]>) -> Result<Signature, String> {
    let mut params = Vec::new();
    for (name, ty) in func.params() {
        values::supported(&ty).map_err(|e| format!("argument {name}: {e}"))?;
        params.push(Param { name: outside_name(name), ty });
    }
    let mut results = func.results();
    let (Some(Type::Result(result)), None) = (results.next(), results.next()) else {
        return Err("it must return a result with the gateway's failure".into());
    };
    match result.err() {
        Some(Type::Variant(variant))
            if failure.is_none_or(|failure| variant.cases().map(|c| c.name).eq(failure.iter().copied())) => {}
        _ => return Err("its error type is not the gateway's failure".into()),
    }
    let ok = result.ok();
    if let Some(ty) = &ok {
        values::supported(ty).map_err(|e| format!("result: {e}"))?;
    }
    Ok((params, ok))
}
