//! A verb that was released as `read` and tries an effect. The attempt must be denied
//! and nothing written.

use exports::viworks::read_effect::verbs::Guest;
use viworks_sdk::{Result, state};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:read-effect/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/state@1.0.0": viworks_sdk::state,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn peek(key: String) -> Result<String> {
        state::set(&key, "written by a read")?;
        Ok(state::get(&key)?.unwrap_or_default())
    }
}

export!(Plugin);
