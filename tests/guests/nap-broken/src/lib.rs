//! The next release of `nap`, as a pipeline lets one slip through: it is signed, it loads,
//! and every call fails.

use exports::viworks::nap::verbs::Guest;
use viworks_sdk::{Failure, Result};

wit_bindgen::generate!({
    path: ["../../../wit", "../nap/wit"],
    world: "viworks:nap/plugin",
    with: { "viworks:gateway/types@1.0.0": viworks_sdk::types },
});

struct Plugin;

impl Guest for Plugin {
    fn nap(ms: u32) -> Result<u32> {
        Err(Failure::Failed(format!("could not sleep for {ms} ms")))
    }
}

export!(Plugin);
