//! `viworks plugin new`: a folder that builds, with a verb to begin from. It brings the
//! gateway's WIT and the SDK's source along, so it needs nothing of this repository.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use viworks_signing::names;

use super::gateway_wit;
use crate::error::Error;
use crate::output::Out;

/// The SDK as it stands in this repository, with its paths to the gateway's WIT.
const SDK: [(&str, &str); 5] = [
    ("sdk/Cargo.toml", include_str!("../../../plugins/sdk/Cargo.toml")),
    ("sdk/src/lib.rs", include_str!("../../../plugins/sdk/src/lib.rs")),
    ("sdk/src/failure.rs", include_str!("../../../plugins/sdk/src/failure.rs")),
    ("sdk/src/log_macros.rs", include_str!("../../../plugins/sdk/src/log_macros.rs")),
    ("sdk/src/steps.rs", include_str!("../../../plugins/sdk/src/steps.rs")),
];
const OWN: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../../scaffold/Cargo.toml.in")),
    ("plugin.toml", include_str!("../../scaffold/plugin.toml.in")),
    ("src/lib.rs", include_str!("../../scaffold/lib.rs.in")),
    ("wit/world.wit", include_str!("../../scaffold/world.wit.in")),
    (".cargo/config.toml", include_str!("../../../plugins/.cargo/config.toml")),
];
/// From the SDK's folder: in this repository, and in the scaffold.
const WIT_HERE: &str = "path: \"../../wit\"";
const WIT_THERE: &str = "path: \"../wit/deps/viworks-gateway\"";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  viworks plugin new web-cache && viworks plugin build web-cache")]
pub struct New {
    /// The plugin's id: lower-case words joined by hyphens.
    name: String,
    /// The folder to make; the plugin's id if absent.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl New {
    pub(super) fn run(self, out: &Out) -> Result<(), Error> {
        if !names::is_plugin_id(&self.name) || !self.name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let text =
                format!("{:?} is no plugin id: lower-case words joined by hyphens, for example web-cache", self.name);
            return Err(Error::Usage(text));
        }
        let dir = self.dir.unwrap_or_else(|| self.name.clone().into());
        if dir.symlink_metadata().is_ok() {
            return Err(Error::Usage(format!("{} exists already", dir.display())));
        }
        for (name, text) in files(&self.name) {
            let path = dir.join(&name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::file("make the folder", parent))?;
            }
            fs::write(&path, text).map_err(Error::file("write it", path))?;
        }
        gateway_wit::write(&dir.join("wit/deps/viworks-gateway"))?;
        out.show(&json!({ "dir": dir }), |_| {
            let dir = dir.display();
            format!("made {dir}\n\nIts verb is in {dir}/wit/world.wit and {dir}/src/lib.rs. Build it with\n  viworks plugin build {dir}\n")
        })
    }
}

fn files(id: &str) -> Vec<(String, String)> {
    let module = id.replace('-', "_");
    let own =
        OWN.iter().map(|(name, text)| ((*name).to_owned(), text.replace("{{id}}", id).replace("{{module}}", &module)));
    let sdk = SDK.iter().map(|(name, text)| ((*name).to_owned(), text.replace(WIT_HERE, WIT_THERE)));
    own.chain(sdk).chain([(".gitignore".to_owned(), "/target\n".to_owned())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_signing::manifest::Manifest;

    #[test]
    fn the_manifest_is_well_formed_and_the_sdk_finds_its_wit() {
        let files = files("web-cache");
        let text = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str()).unwrap();
        assert_eq!(Manifest::parse(text("plugin.toml")).unwrap().id, "web-cache");
        assert!(text("sdk/src/lib.rs").contains(WIT_THERE));
        assert!(text("src/lib.rs").contains("exports::viworks::web_cache::verbs"));
        assert!(files.iter().all(|(_, text)| !text.contains("{{")), "every placeholder is filled");
    }

    #[test]
    fn every_file_of_the_sdk_is_here() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk/src");
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        for name in names {
            assert!(SDK.iter().any(|(known, _)| known.ends_with(&name)), "{name}");
        }
    }
}
