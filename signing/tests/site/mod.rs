//! A folder in which the real program runs: a component, its manifest and keys.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../src/fixture.rs"]
mod fixture;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use fixture::{GATEWAY_WIT, TESTDATA, component, sample};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with a component, its manifest and a key pair.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        site.write("built.wasm", &sample());
        site.write("plugin.toml", &std::fs::read(format!("{TESTDATA}/sample/plugin.toml")).unwrap());
        site.ok(&["keygen", "--out", "release"]);
        site
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_viworks-sign"));
        command.args(args).current_dir(self.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends with `code`, and says `words` on standard error.
    pub fn fails(&self, code: i32, words: &str, args: &[&str]) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }

    pub fn sign(&self) -> String {
        let wit = format!("{TESTDATA}/sample");
        self.ok(&["sign", "built.wasm", "--key", "file:release.key.pem", "--wit", &wit, "--wit", GATEWAY_WIT])
    }

    pub fn verify(&self, more: &[&str]) -> (Option<i32>, Value) {
        let args = ["verify", "sample.wasm", "--key", "release.pub.pem", "--output", "json"];
        let output = self.run(&[&args, more].concat());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}
