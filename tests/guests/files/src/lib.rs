//! Imports WASI files and tries them: it must see nothing, or not be admitted at all.

use exports::viworks::files::verbs::Guest;
use viworks_sdk::{OrFailure as _, Result};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:files/plugin",
    with: { "viworks:gateway/types@1.0.0": viworks_sdk::types },
});

struct Plugin;

impl Guest for Plugin {
    fn read_host(path: String) -> Result<String> {
        std::fs::read_to_string(&path).or_failed(&path)
    }
}

export!(Plugin);
