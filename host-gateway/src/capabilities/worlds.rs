//! The versions of `viworks:gateway` that this gateway serves, side by side. Within a major
//! there is one [`World`], the newest minor, which serves all plugins of that major: only
//! functions and interfaces are ever added to it. A new major is a new module of generated
//! code, a new list of interfaces and a new line here; the old line stays until no plugin
//! needs it.

use super::{INTERFACES, Interface};

/// One major of the API, as this gateway serves it.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub major: u32,
    /// The newest; older ones are a part of it.
    pub minor: u32,
    pub interfaces: &'static [Interface],
    /// The cases of its `failure`, all of which a verb's error type has.
    pub failure: &'static [&'static str],
}

/// Every major that plugins may be written against.
pub const WORLDS: &[World] = &[World {
    major: 1,
    minor: 0,
    interfaces: INTERFACES,
    failure: &["invalid-argument", "denied", "conflict", "not-found", "unavailable", "failed", "other"],
}];

impl World {
    /// Whether a plugin that needs this version of the API can run here: `1.0`.
    #[must_use]
    pub fn fits(&self, wanted: &str) -> bool {
        let parsed = || {
            let (major, minor) = wanted.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        };
        parsed().is_some_and(|(major, minor)| major == self.major && minor <= self.minor)
    }

    /// `1.0`
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// The versions of all worlds, for people.
#[must_use]
pub fn versions(worlds: &[World]) -> String {
    worlds.iter().map(World::version).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
