//! Sleeps inside a host call, where no epoch interrupts it: for timeouts, cancelling and
//! full queues.

use std::time::{Duration, Instant};

use exports::viworks::nap::verbs::Guest;
use viworks_sdk::Result;

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:nap/plugin",
    with: { "viworks:gateway/types@1.0.0": viworks_sdk::types },
});

struct Plugin;

impl Guest for Plugin {
    fn nap(ms: u32) -> Result<u32> {
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(ms.into()));
        Ok(u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX))
    }
}

export!(Plugin);
