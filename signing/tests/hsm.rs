//! Keys in a real PKCS#11 token (SoftHSM2): made there, used there, never out of there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where what it needs is missing")]

#[path = "../src/fixture.rs"]
mod fixture;

use fixture::{TESTDATA, sample};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const PIN: &str = "correct-horse";

/// A folder with a token of its own, a component and its manifest.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        let path = site.dir.path();
        std::fs::create_dir(path.join("tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", path.join("tokens").display());
        std::fs::write(path.join("softhsm2.conf"), conf).unwrap();
        std::fs::write(path.join("built.wasm"), sample()).unwrap();
        std::fs::copy(format!("{TESTDATA}/sample/plugin.toml"), path.join("plugin.toml")).unwrap();
        std::fs::write(path.join("pin"), PIN).unwrap();
        std::fs::set_permissions(path.join("pin"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let init = site.run_program(
            "softhsm2-util",
            &["--init-token", "--free", "--label", "release keys", "--so-pin", "12345678", "--pin", PIN],
        );
        assert!(init.status.success(), "{init:?}");
        site
    }

    fn run_program(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path());
        command.env("SOFTHSM2_CONF", self.dir.path().join("softhsm2.conf")).env("PIN", PIN).env("WRONG", "wrong-pin");
        command.output().expect("softhsm2 is installed (make tools)")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_program(env!("CARGO_BIN_EXE_viworks-sign"), args)
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, code: i32, words: &str, args: &[&str]) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

fn module() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).expect("softhsm2 is installed (make tools)")
}

fn uri(token: &str, object: &str, pin: &str) -> String {
    format!("pkcs11:token={token};object={object}?module-path={}&pin-source={pin}", module().display())
}

#[test]
fn a_key_is_made_in_the_token_and_signs_there() {
    let site = Site::new();
    let key = uri("release%20keys", "release", "file:pin");
    site.fails(2, "--public FILE", &["keygen", "--out", &key]);
    site.ok(&["keygen", "--out", &key, "--public", "release.pub.pem"]);
    site.fails(2, "not overwritten", &["keygen", "--out", &key, "--public", "other.pub.pem"]);
    let by_env = uri("release%20keys", "release", "env:PIN");
    let public = site.ok(&["public", "--key", &by_env]);
    assert_eq!(public, std::fs::read_to_string(site.dir.path().join("release.pub.pem")).unwrap());

    let signed = site.ok(&["sign", "built.wasm", "--key", &by_env]);
    assert!(signed.contains("sample 1.2.0"), "{signed}");
    site.ok(&["verify", "sample.wasm", "--key", "release.pub.pem", "--plugin", "sample"]);
    // A token's key beside a file's, in one envelope.
    site.ok(&["keygen", "--out", "second"]);
    site.ok(&["sign", "built.wasm", "--key", &key, "--key", "second.key.pem"]);
    site.ok(&["verify", "sample.wasm", "--key", "release.pub.pem", "--plugin", "sample"]);
    site.ok(&["verify", "sample.wasm", "--key", "second.pub.pem", "--plugin", "sample"]);
    site.fails(5, "are one key", &["sign", "built.wasm", "--key", &key, "--key", &by_env]);
}

#[test]
fn what_the_uri_does_not_fit_is_told() {
    let site = Site::new();
    let sign = |key: &str, code, words| site.fails(code, words, &["sign", "built.wasm", "--key", key]);
    site.ok(&["keygen", "--out", &uri("release%20keys", "one", "env:PIN"), "--public", "one.pub.pem"]);
    site.ok(&["keygen", "--out", &uri("release%20keys", "two", "env:PIN"), "--public", "two.pub.pem"]);
    sign(&uri("release%20keys", "three", "env:PIN"), 5, "0 private Ed25519 keys fit \"three\"");
    sign(&uri("release%20keys", "one", "env:WRONG"), 5, "can't log in");
    sign(&uri("release%20keys", "one", "env:NO_SUCH_PIN"), 5, "NO_SUCH_PIN is not set");
    sign(&uri("other", "one", "env:PIN"), 5, "no token \"other\"");
    sign("pkcs11:token=t;object=o?module-path=/nonexistent.so", 5, "can't begin with the PKCS#11 module");
    sign(&uri("release%20keys", "one", "env:PIN").replace("pin-source=env:PIN", "pin-value=1"), 2, "use pin-source");
    sign(&uri("release%20keys", "one", PIN), 2, "pin-source: secret");
}

#[test]
fn a_key_in_a_token_leaves_only_its_public_half_outside() {
    let site = Site::new();
    site.ok(&["keygen", "--out", &uri("release%20keys", "release", "env:PIN"), "--public", "release.pub.pem"]);
    let files = |dir: &Path| {
        let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries
    };
    let mut names: Vec<_> =
        files(site.dir.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["built.wasm", "pin", "plugin.toml", "release.pub.pem", "softhsm2.conf", "tokens"]);
}
