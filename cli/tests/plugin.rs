//! The scaffold, built by the real toolchain: what `plugin new` makes is a component that
//! could be signed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on may end where it stands")]

use std::path::Path;
use std::process::{Command, Output};

fn viworks(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viworks"))
        .args(args)
        .current_dir(dir)
        // Kept between runs, and apart from this workspace's own.
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold"))
        .output()
        .unwrap()
}

#[test]
fn a_new_plugin_builds_and_fits_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let made = viworks(dir.path(), &["plugin", "new", "web-cache"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = viworks(dir.path(), &["plugin", "new", "web-cache"]);
    assert_eq!(again.status.code(), Some(2), "an existing folder is left alone");

    let built = viworks(dir.path(), &["plugin", "build", "web-cache", "--out", "dist"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let component = std::fs::read(dir.path().join("dist/web-cache.wasm")).unwrap();
    let described = viworks_signing::describe::describe(&component).unwrap();
    assert_eq!(described.world, "viworks:web-cache/plugin@0.1.0");
    let greet = &described.verbs["greet"];
    assert_eq!(greet.docs, "Greet somebody. This comment becomes the verb's description.");
    assert_eq!(greet.args["required"], serde_json::json!(["name"]));
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let text = String::from_utf8_lossy(&component);
    assert!(!text.contains(&format!("{home}/")), "no path of this machine is in the component");

    // A manifest that does not fit is refused, and nothing is written.
    let manifest = dir.path().join("web-cache/plugin.toml");
    let changed = std::fs::read_to_string(&manifest).unwrap().replace("verbs.greet", "verbs.great");
    std::fs::write(&manifest, changed).unwrap();
    let refused = viworks(dir.path(), &["plugin", "build", "web-cache", "--out", "other"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("verbs.greet"), "{refused:?}");
    assert!(!dir.path().join("other").exists());
}
