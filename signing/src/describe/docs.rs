//! The docs section: doc comments of a plugin's WIT, which no guest language's build
//! keeps. Ours is JSON, and holds only what the verbs' schemas ask for. Refuses
//! sections that are too large or of another version.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use crate::strict_json::{self, Floats};

/// Bytes; plugins are documented, not narrated.
pub(crate) const MAX_DOCS: usize = 64 * 1024;
const VERSION: u32 = 1;

/// The section's content. Text by interface (`viworks:accounts/verbs@1.0.0`) and by
/// item: a function or type (`add-user`), or a field or case (`account.home`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Docs {
    version: u32,
    /// The plugin's world, for example `viworks:accounts/plugin@1.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) world: Option<String>,
    docs: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for Docs {
    fn default() -> Self {
        Self { version: VERSION, world: None, docs: BTreeMap::new() }
    }
}

impl Docs {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let docs: Self = strict_json::from_slice(bytes, MAX_DOCS, Floats::Refused).map_err(Error::Docs)?;
        if docs.version != VERSION {
            let found = serde::de::Error::custom(format!("docs of version {}, wanted {VERSION}", docs.version));
            return Err(Error::Docs(strict_json::Error::Shape(found)));
        }
        Ok(docs)
    }

    pub(crate) fn insert(&mut self, interface: &str, item: &str, text: &str) {
        self.docs.entry(interface.to_owned()).or_default().insert(item.to_owned(), text.to_owned());
    }

    pub(crate) fn get(&self, interface: &str, item: &str) -> Option<&str> {
        self.docs.get(interface)?.get(item).map(String::as_str)
    }
}

/// Docs that remember what they were asked for, so that packing keeps just that.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    docs: Docs,
    asked: RefCell<BTreeSet<(String, String)>>,
}

impl Lookup {
    pub(crate) fn new(docs: Docs) -> Self {
        Self { docs, asked: RefCell::default() }
    }

    pub(crate) fn get(&self, interface: &str, item: &str) -> Option<String> {
        self.asked.borrow_mut().insert((interface.to_owned(), item.to_owned()));
        self.docs.get(interface, item).map(str::to_owned)
    }

    pub(crate) fn asked(self) -> BTreeSet<(String, String)> {
        self.asked.into_inner()
    }
}
