//! Imports `accounts`. Where the host's owner does not grant that it must not load, and the
//! refusal must name the import.

use exports::viworks::undeclared::verbs::Guest;
use viworks_sdk::{Result, accounts};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:undeclared/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/accounts@1.0.0": viworks_sdk::accounts,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn count_users() -> Result<u32> {
        Ok(u32::try_from(accounts::list()?.len()).unwrap_or(u32::MAX))
    }
}

export!(Plugin);
