//! Sends values back: every type of the mapping, every case of `failure`, and the
//! benchmark's `ping`, which calls nothing and allocates little.

use exports::viworks::echo::verbs::{Color, Everything, Guest, Pong};
use viworks_sdk::{Failure, Result};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "viworks:echo/plugin",
    with: { "viworks:gateway/types@1.0.0": viworks_sdk::types },
});

struct Plugin;

impl Guest for Plugin {
    fn echo(value: Everything) -> Result<Everything> {
        Ok(value)
    }

    fn echo_args(first_name: String, times: u32, colors: Option<Vec<Color>>, ratio: Option<f32>) -> Result<String> {
        Ok(format!("{first_name} {times} {colors:?} {ratio:?}"))
    }

    fn fail(how: Failure) -> Result<String> {
        Err(how)
    }

    fn quiet() -> Result<()> {
        Ok(())
    }

    fn ping(text: String) -> Result<Pong> {
        let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Ok(Pong {
            length: u32::try_from(text.len()).unwrap_or(u32::MAX),
            words: u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX),
            hash,
            upper: text.chars().all(|c| !c.is_lowercase()),
            kind: Color::DarkBlue,
            tags: vec!["ping".into(), "pong".into()],
            note: None,
            text,
        })
    }
}

export!(Plugin);
