//! `viworks-sign` as its users run it: real files, exit codes and words.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where what it needs is missing")]

mod site;

use serde_json::Value;
use site::{GATEWAY_WIT, Site, TESTDATA, component};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

const VERIFY: [&str; 6] = ["verify", "sample.wasm", "--key", "release.pub.pem", "--plugin", "sample"];

#[test]
fn keys_are_private_and_never_overwritten() {
    let site = Site::new();
    let mode = |name: &str| site.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("release.key.pem"), mode("release.pub.pem") & 0o600), (0o600, 0o600));
    let before = site.read("release.key.pem");
    site.fails(2, "release.key.pem exists already and is not overwritten", &["keygen", "--out", "release"]);
    assert_eq!(site.read("release.key.pem"), before);
    site.write("half.pub.pem", b"");
    site.fails(2, "half.pub.pem exists", &["keygen", "--out", "half"]);
    assert!(!site.path().join("half.key.pem").exists());
    symlink("/nonexistent", site.path().join("link.key.pem")).unwrap();
    site.fails(2, "link.key.pem exists", &["keygen", "--out", "link"]);
    site.fails(3, "can't write no/such.key.pem", &["keygen", "--out", "no/such"]);
}

#[test]
fn what_is_signed_verifies_and_what_is_changed_does_not() {
    let site = Site::new();
    let said = site.sign();
    assert!(said.contains("sample 1.2.0 (add_user, put_thing, touch)"), "{said}");
    assert!(site.ok(&VERIFY).starts_with("VERIFIED  sample 1.2.0\n"));
    let (code, answer) = site.verify(&["--plugin", "sample"]);
    assert_eq!((code, &answer["result"], &answer["code"]), (Some(0), &"verified".into(), &"OK".into()));
    assert_eq!((&answer["sequence"], answer["keyids"].as_array().map(Vec::len)), (&3.into(), Some(1)));

    let (code, answer) = site.verify(&["--plugin", "other"]);
    assert_eq!((code, &answer["result"], &answer["code"]), (Some(1), &"refused".into(), &"E_PLUGIN".into()));
    let mut bytes = site.read("sample.wasm");
    *bytes.last_mut().unwrap() ^= 1;
    site.write("sample.wasm", &bytes);
    let (code, answer) = site.verify(&["--plugin", "sample"]);
    assert_eq!((code, &answer["code"]), (Some(1), &"E_DIGEST".into()));
    site.write("sample.wasm", &vec![0; viworks_signing::verify::MAX_COMPONENT + 1]);
    assert_eq!(site.verify(&["--plugin", "sample"]).1["code"], "E_SIZE");
}

#[test]
fn signing_is_repeatable_and_leaves_nothing_else_behind() {
    let site = Site::new();
    site.sign();
    let files = || (site.read("sample.wasm"), site.read("sample.wasm.intoto.jsonl"));
    let first = files();
    site.sign();
    assert_eq!(files(), first);
    let wit = format!("{TESTDATA}/sample");
    site.ok(&["sign", "sample.wasm", "--key", "release.key.pem", "--wit", GATEWAY_WIT, "--wit", &wit]);
    assert_eq!(files(), first, "from the packed component too");
    let mut names: Vec<_> =
        std::fs::read_dir(site.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let wanted =
        ["built.wasm", "plugin.toml", "release.key.pem", "release.pub.pem", "sample.wasm", "sample.wasm.intoto.jsonl"];
    assert_eq!(names, wanted);
    site.ok(&["sign", "built.wasm", "--key", "release.key.pem", "--out", "new/dist"]);
    assert!(site.path().join("new/dist/sample.wasm").exists());
}

#[test]
fn not_before_is_now_unless_something_says_otherwise() {
    let site = Site::new();
    site.ok(&["sign", "built.wasm", "--key", "release.key.pem", "--not-before", "2999-01-01T00:00:00Z"]);
    assert_eq!(site.verify(&["--plugin", "sample"]).1["code"], "E_NOT_YET");
    let later = ["sign", "built.wasm", "--key", "release.key.pem", "--not-before", "tomorrow"];
    site.fails(2, "\"tomorrow\" is no RFC 3339 time", &later);
    let toml = String::from_utf8(site.read("plugin.toml")).unwrap().replace("not_before", "# not_before");
    site.write("plugin.toml", toml.as_bytes());
    site.ok(&["sign", "built.wasm", "--key", "release.key.pem"]);
    assert_eq!(site.verify(&["--plugin", "sample"]).0, Some(0));
    let inspected: Value = serde_json::from_str(&site.ok(&["inspect", "sample.wasm", "--output", "json"])).unwrap();
    let not_before = inspected["statement"]["predicate"]["notBefore"].as_str().unwrap();
    assert!(not_before > "2024-01-01T00:00:00Z", "{not_before}");
}

#[test]
fn keys_come_by_file_by_variable_and_under_a_password() {
    let site = Site::new();
    let sign = ["sign", "built.wasm", "--key"];
    let with = |key: &str, more: &[&str]| site.run(&[&sign, &[key][..], more].concat()).status.code();
    let pem = String::from_utf8(site.read("release.key.pem")).unwrap();
    let from_env = site.command(&["sign", "built.wasm", "--key", "env:SIGNING_KEY"]).env("SIGNING_KEY", pem).output();
    assert!(from_env.unwrap().status.success());
    assert_eq!(site.verify(&["--plugin", "sample"]).0, Some(0));
    assert_eq!(with("env:NO_SUCH_KEY", &[]), Some(5));
    assert_eq!(with("pkcs11:token", &[]), Some(2));
    assert_eq!(with("no-such.pem", &[]), Some(3));
    assert_eq!(with("release.pub.pem", &[]), Some(5), "others can read it, and it is no private key");

    site.write("password", b"correct horse\n");
    site.fails(
        5,
        "password can be read by others (mode 0644)",
        &["keygen", "--out", "x", "--password-file", "password"],
    );
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(site.path().join("password"), owner_only).unwrap();
    site.ok(&["keygen", "--out", "sealed", "--password-file", "password"]);
    assert_eq!(with("sealed.key.pem", &[]), Some(5), "no password");
    assert_eq!(with("sealed.key.pem", &["--password-env", "NO_SUCH_PASSWORD"]), Some(5));
    assert_eq!(with("release.key.pem", &["--password-file", "password"]), Some(5), "a password too many");
    assert_eq!(with("sealed.key.pem", &["--password-file", "password"]), Some(0));
    let signed = ["verify", "sample.wasm", "--key", "sealed.pub.pem", "--plugin", "sample"];
    site.ok(&signed);
    assert_eq!(site.verify(&["--plugin", "sample"]).1["code"], "E_SIGNATURE", "not by the release key");
    let by_descriptor = Command::new("bash")
        .args(["-c", "exec \"$0\" sign built.wasm --key sealed.key.pem --password-fd 3 3<password"])
        .arg(env!("CARGO_BIN_EXE_viworks-sign"))
        .current_dir(site.path())
        .output()
        .unwrap();
    assert!(by_descriptor.status.success(), "{by_descriptor:?}");
    let wrong = site.command(&["sign", "built.wasm", "--key", "sealed.key.pem", "--password-env", "PW"]);
    assert_eq!({ wrong }.env("PW", "wrong").output().unwrap().status.code(), Some(5));

    std::fs::set_permissions(site.path().join("release.key.pem"), std::fs::Permissions::from_mode(0o640)).unwrap();
    site.fails(5, "chmod 600", &["sign", "built.wasm", "--key", "release.key.pem"]);
}

#[test]
fn several_keys_sign_one_envelope() {
    let site = Site::new();
    site.ok(&["keygen", "--out", "second"]);
    site.ok(&["sign", "built.wasm", "--key", "release.key.pem", "--key", "second.key.pem"]);
    let (_, one) = site.verify(&["--plugin", "sample"]);
    let (_, both) = site.verify(&["--plugin", "sample", "--key", "second.pub.pem"]);
    let count = |answer: &Value| answer["keyids"].as_array().map(Vec::len);
    assert_eq!((count(&one), count(&both)), (Some(1), Some(2)));
}

#[test]
fn faults_are_told_with_the_exit_code_of_their_kind() {
    let site = Site::new();
    site.fails(2, "Usage", &["sign"]);
    site.fails(2, "Usage", &["verify", "built.wasm"]);
    site.fails(3, "can't read none.wasm", &["sign", "none.wasm", "--key", "release.key.pem"]);
    site.fails(3, "can't read sample.wasm", &VERIFY);
    site.fails(
        3,
        "can't read none.toml",
        &["sign", "built.wasm", "--key", "release.key.pem", "--manifest", "none.toml"],
    );
    site.write("core.wasm", b"\0asm\x01\0\0\0");
    site.fails(1, "a core module, not a component", &["sign", "core.wasm", "--key", "release.key.pem"]);
    site.fails(1, "a core module, not a component", &["inspect", "core.wasm"]);
    site.fails(
        1,
        "the WIT has no interface example:sample/verbs",
        &["sign", "built.wasm", "--key", "release.key.pem", "--wit", GATEWAY_WIT],
    );
    site.write("plugin.toml", b"id = \"Sample\"\nversion = 3\n");
    site.fails(1, "plugin.toml: id: found \"Sample\"; wanted", &["sign", "built.wasm", "--key", "release.key.pem"]);
    site.fails(1, "\nversion: found 3; wanted", &["sign", "built.wasm", "--key", "release.key.pem"]);
    site.write("bad.pub.pem", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    site.write("plugin.toml", &std::fs::read(format!("{TESTDATA}/sample/plugin.toml")).unwrap());
    site.sign();
    site.fails(5, "bad.pub.pem", &["verify", "sample.wasm", "--key", "bad.pub.pem", "--plugin", "sample"]);
}

#[test]
fn inspect_says_what_stands_there_and_that_nobody_vouches_for_it() {
    let site = Site::new();
    let unsigned = site.ok(&["inspect", "built.wasm"]);
    assert!(unsigned.starts_with("UNVERIFIED") && unsigned.contains("statement  none"), "{unsigned}");
    site.sign();
    let text = site.ok(&["inspect", "sample.wasm"]);
    let wanted = [
        "UNVERIFIED",
        "plugin     sample 1.2.0: A verb for each kind of type",
        "world      example:sample/plugin@1.2.0",
        "statement  about these bytes; says it is signed by",
        "  add_user: changes the host, at most 20 s\n    Add a user.",
        "    name      text like ^[a-z_][a-z0-9_-]{0,31}$: The login name",
        "    uid       whole number from 1000 to 4294967295 (may be left out)",
        "    rights  set of one of: read, write",
        "one of: nowhere; shelf with whole number from 0 to 255; at with (number, number); maybe with text",
        "  put_thing: changes the host for good, at most 30 s",
        "  touch: reads, at most 30 s\n    Nothing in, nothing out.\n    gives nothing",
        "imports\n  viworks:gateway/accounts@1.0.0",
        "scopes asked for\n  accounts\n    groups = [\"*\"]",
        "memory 8 MiB",
    ];
    for words in wanted {
        assert!(text.contains(words), "{words}\nin\n{text}");
    }
    std::fs::copy(site.path().join("built.wasm"), site.path().join("sample.wasm")).unwrap();
    assert!(site.ok(&["inspect", "sample.wasm"]).contains("ABOUT OTHER BYTES"));
    let json: Value = serde_json::from_str(&site.ok(&["inspect", "sample.wasm", "--output", "json"])).unwrap();
    assert_eq!((&json["result"], &json["statement_matches"]), (&"unverified".into(), &false.into()));
}

#[test]
fn nothing_in_a_file_reaches_the_terminal_as_a_control_character() {
    let site = Site::new();
    let wit = "package example:t@1.0.0;
         interface verbs { use viworks:gateway/types@1.0.0.{failure}; touch: func() -> result<_, failure>; }
         world plugin { export verbs; }";
    let mut bytes = component(wit);
    let docs = br#"{"version":1,"docs":{"example:t/verbs@1.0.0":{"touch":"\u001b[2J\u0007wiped"}}}"#;
    let section = wasm_encoder::CustomSection { name: "viworks-docs".into(), data: docs.into() };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
    site.write("hostile.wasm", &bytes);
    let text = site.ok(&["inspect", "hostile.wasm"]);
    assert!(text.contains("wiped") && !text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
}

#[test]
fn help_has_examples_for_every_command() {
    let site = Site::new();
    for command in ["keygen", "sign", "verify", "inspect"] {
        let help = site.ok(&[command, "--help"]);
        assert!(help.contains(&format!("viworks-sign {command}")), "{help}");
        assert!(help.contains("Examples:"), "{help}");
    }
    assert!(site.ok(&["--help"]).contains("Exit codes:"));
}
