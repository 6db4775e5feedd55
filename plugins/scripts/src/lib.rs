//! The verbs on scripts. What may run is pinned on the host; here is what an exit code
//! means to an operator.

use exports::viworks::scripts::verbs::Guest;
use viworks_sdk::scripts::{self, Output, Script};
use viworks_sdk::{Failure, Result, info, warn};

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "viworks:scripts/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/log@1.0.0": viworks_sdk::log,
        "viworks:gateway/scripts@1.0.0": viworks_sdk::scripts,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn run_script(name: String, args: Option<Vec<String>>, check: Option<bool>) -> Result<Output> {
        let output = scripts::run(&name, &args.unwrap_or_default())?;
        if output.exit_code == 0 || check != Some(true) {
            return Ok(output);
        }
        // A failure has no result, so the output goes where it is kept.
        for line in output.stdout.lines() {
            info!("stdout: {line}");
        }
        for line in output.stderr.lines() {
            warn!("stderr: {line}");
        }
        let last = output.stdout.lines().chain(output.stderr.lines()).rfind(|line| !line.trim().is_empty());
        let said = last.map(|line| format!(": {line}")).unwrap_or_default();
        Err(Failure::failed(format!("{name} exited with {}{said}", output.exit_code)))
    }

    fn list_scripts() -> Result<Vec<Script>> {
        scripts::list()
    }
}

export!(Plugin);
