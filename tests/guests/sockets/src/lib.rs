//! Imports WASI sockets and tries them: it must reach nothing, or not be admitted at all.

use std::io::Read as _;
use std::net::TcpStream;

use exports::viworks::sockets::verbs::Guest;
use viworks_sdk::{OrFailure as _, Result};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:sockets/plugin",
    with: { "viworks:gateway/types@1.0.0": viworks_sdk::types },
});

struct Plugin;

impl Guest for Plugin {
    fn dial(address: String) -> Result<String> {
        let mut answer = String::new();
        TcpStream::connect(&address).or_failed(&address)?.take(64).read_to_string(&mut answer).or_failed("read")?;
        Ok(answer)
    }
}

export!(Plugin);
