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

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_plugin_is_the_same_bytes_from_every_folder() {
    let dir = tempfile::tempdir().unwrap();
    assert!(viworks(dir.path(), &["plugin", "new", "web-cache"]).status.success());
    let there = dir.path().join("some/longer/path");
    copy(&dir.path().join("web-cache"), &there.join("of-another-machine"));
    let build = |dir: &Path, source: &str, target: &str| {
        let built = Command::new(env!("CARGO_BIN_EXE_viworks"))
            .args(["plugin", "build", source, "--out", "dist"])
            .current_dir(dir)
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join(target))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::read(dir.join("dist/web-cache.wasm")).unwrap()
    };
    let first = build(dir.path(), "web-cache", "scaffold");
    let second = build(&there, "of-another-machine", "scaffold-of-another-machine");
    assert!(first == second, "one source, one digest");
    let here = dir.path().to_str().unwrap();
    assert!(!String::from_utf8_lossy(&first).contains(here), "no path of this machine");
}

/// A crate without dependencies, so that building it twice from nothing takes no time.
fn small(dir: &Path, lib: &str, build: &str) {
    let cargo = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
        [lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n[profile.release]\npanic = \"abort\"\n";
    let manifest = "id = \"small\"\nversion = \"0.1.0\"\nsequence = 1\n[verbs.greet]\neffect = \"read\"\n";
    for (name, text) in [("Cargo.toml", cargo), ("plugin.toml", manifest), ("src/lib.rs", lib), ("build.rs", build)] {
        std::fs::create_dir_all(dir.join("src")).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_build_that_gives_other_bytes_each_time_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lib = "#[unsafe(no_mangle)]\npub extern \"C\" fn stamp(i: usize) -> u8 {
        include_str!(concat!(env!(\"OUT_DIR\"), \"/stamp\")).as_bytes()[i]
    }";
    let build = |stamp: &str| {
        format!("fn main() {{ std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/stamp\", {stamp}).unwrap(); }}")
    };
    let check = || viworks(dir.path(), &["plugin", "build", "small", "--check", "--out", "dist"]);
    small(&dir.path().join("small"), lib, &build("\"always the same\""));
    let same = check();
    let said = String::from_utf8_lossy(&same.stderr).into_owned();
    // It has no verbs, so it goes no further, but its bytes are the same.
    assert!(said.contains("built twice from nothing, the same bytes"), "{said}");
    assert!(!said.contains("two builds"), "{said}");

    let time = build("format!(\"{:?}\", std::time::SystemTime::now())");
    small(&dir.path().join("small"), lib, &time);
    let refused = check();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("two builds of one source differ"), "{said}");
    assert!(!dir.path().join("dist").exists());
}
