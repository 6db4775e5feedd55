//! One bundle that verifies, and everything near it that must not.

use super::*;
use crate::dsse::{Envelope, MAX_SIGNATURES, Signature};
use crate::fixture::{component, sample};
use crate::keys::SecretKey;
use crate::manifest::tests::sample_manifest;
use crate::publish::{build_release, sign_release};
use crate::release::{PAYLOAD_TYPE, STATEMENT_TYPE, Statement, Verb};
use serde_json::{Value, json};
use std::time::Duration;

/// 2030-01-01, after the sample's `not_before`.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

struct Bundle {
    component: Vec<u8>,
    statement: Statement,
    key: SecretKey,
}

impl Bundle {
    fn new() -> Self {
        let component = sample();
        let statement = build_release(&component, &sample_manifest()).unwrap();
        Self { component, statement, key: SecretKey::generate() }
    }

    fn line(&self) -> String {
        sign_release(&self.statement, &[&self.key]).unwrap()
    }

    fn verify(&self, component: &[u8], statements: &str) -> Result<VerifiedRelease, Refusal> {
        verify(component, statements, &[self.key.public()], Some("sample"), now())
    }

    fn code(&self, component: &[u8], statements: &str) -> &'static str {
        self.verify(component, statements).map_or_else(|refusal| refusal.code(), |_| "OK")
    }

    /// The code for a statement that its signer changed.
    fn signed(&self, change: impl FnOnce(&mut Statement)) -> &'static str {
        let mut statement = self.statement.clone();
        change(&mut statement);
        self.code(&self.component, &sign_release(&statement, &[&self.key]).unwrap())
    }

    /// The code for any payload, signed.
    fn payload(&self, payload: &[u8]) -> &'static str {
        self.code(&self.component, &self.envelope(PAYLOAD_TYPE, payload))
    }

    fn envelope(&self, payload_type: &str, payload: &[u8]) -> String {
        serde_json::to_string(&Envelope::sign(payload_type, payload, &[&self.key])).unwrap() + "\n"
    }

    fn provenance(&self) -> String {
        let statement = json!({
            "_type": STATEMENT_TYPE, "predicateType": "https://slsa.dev/provenance/v1",
            "subject": [{ "name": "sample.wasm", "digest": { "sha256": self.statement.subject[0].digest.sha256 } }],
            "predicate": {
                "buildDefinition": { "buildType": "https://example.com/b", "externalParameters": { "seconds": 0.5 } },
                "runDetails": { "builder": { "id": "https://ci.example.com" } },
            },
        });
        self.envelope(PAYLOAD_TYPE, statement.to_string().as_bytes())
    }
}

#[test]
fn a_bundle_verifies_and_says_who_signed_what() {
    let bundle = Bundle::new();
    let other = SecretKey::generate();
    let line = sign_release(&bundle.statement, &[&bundle.key, &other, &bundle.key]).unwrap();
    let trusted = [other.public(), bundle.key.public(), SecretKey::generate().public(), other.public()];
    let verified = verify(&bundle.component, &line, &trusted, None, now()).unwrap();
    assert_eq!(verified.release(), &bundle.statement.predicate);
    assert_eq!(verified.digest(), bundle.statement.subject[0].digest.sha256);
    let mut signers = vec![bundle.key.public().id(), other.public().id()];
    signers.sort();
    assert_eq!(verified.signers(), signers);
}

#[test]
fn no_byte_of_the_component_can_change() {
    let bundle = Bundle::new();
    let (bytes, line) = (&bundle.component, bundle.line());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert_eq!(bundle.code(&changed, &line), "E_DIGEST", "byte {at}");
    }
    assert_eq!(bundle.code(&bytes[..bytes.len() - 1], &line), "E_DIGEST");
    assert_eq!(bundle.code(&[bytes.as_slice(), b"\0"].concat(), &line), "E_DIGEST");
    let mut added = bytes.clone();
    let section = wasm_encoder::CustomSection { name: "note".into(), data: b"x".into() };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut added);
    assert_eq!(bundle.code(&added, &line), "E_DIGEST", "a custom section");
    assert_eq!(bundle.code(b"", &line), "E_DIGEST");
}

#[test]
fn no_byte_of_the_statement_can_change_but_the_hint() {
    let bundle = Bundle::new();
    let line = bundle.line();
    let id = bundle.key.public().id();
    let hint = line.find(&id).map(|start| start..start + id.len()).unwrap();
    for at in 0..line.len() - 1 {
        for new in ['A', '0', ' ', '"'] {
            let mut changed = line.clone();
            changed.replace_range(at..=at, new.encode_utf8(&mut [0; 4]));
            let code = bundle.code(&bundle.component, &changed);
            if changed != line && !hint.contains(&at) {
                assert!(
                    // A digit in place of the quote before a key id such as e4… makes a float of it.
                    ["E_ALTERED", "E_MALLEABLE", "E_FORMAT", "E_PAYLOAD_TYPE", "E_JSON_FLOAT"].contains(&code),
                    "{code} for {new:?} at {at}"
                );
            }
        }
    }
    let renamed = line.replace(&id, "another");
    assert_eq!(bundle.code(&bundle.component, &renamed), "OK", "a key id is a hint and decides nothing");
    assert_eq!(bundle.code(&bundle.component, &line[..line.len() / 2]), "E_FORMAT");
}

#[test]
fn only_a_trusted_key_suffices() {
    let bundle = Bundle::new();
    let line = bundle.line();
    let with = |trusted: &[PublicKey]| verify(&bundle.component, &line, trusted, None, now()).map_err(|r| r.code());
    assert_eq!(with(&[SecretKey::generate().public()]).err(), Some("E_SIGNATURE"));
    assert_eq!(with(&[]).err(), Some("E_SIGNATURE"));
}

#[test]
fn other_statements_are_stepped_over_and_never_suffice() {
    let bundle = Bundle::new();
    let (line, provenance) = (bundle.line(), bundle.provenance());
    let foreign = sign_release(&bundle.statement, &[&SecretKey::generate()]).unwrap();
    let text = bundle.envelope("text/plain", b"hello");
    let code = |statements: &[&str]| bundle.code(&bundle.component, &statements.concat());
    assert_eq!(code(&[&provenance, &line]), "OK");
    assert_eq!(code(&[&line, &provenance, &foreign, &text]), "OK");
    assert_eq!(code(&[&provenance]), "E_NO_RELEASE");
    assert_eq!(code(&[]), "E_NO_RELEASE");
    assert_eq!(code(&[&text]), "E_PAYLOAD_TYPE");
    assert_eq!(code(&[&provenance, &foreign]), "E_SIGNATURE");
    assert_eq!(code(&[&line, "nonsense\n"]), "E_FORMAT");
    assert_eq!(code(&[&line, "\n"]), "E_FORMAT", "an empty line");
    assert_eq!(code(&[&line, &line]), "E_AMBIGUOUS");
}

#[test]
fn a_signature_does_not_carry_over_to_another_type() {
    let bundle = Bundle::new();
    let payload = serde_json::to_vec(&bundle.statement).unwrap();
    let line = bundle.envelope("application/vnd.in-toto+jso", &payload).replace("in-toto+jso\"", "in-toto+json\"");
    assert_eq!(bundle.code(&bundle.component, &line), "E_ALTERED");
}

#[test]
fn endless_data_is_refused_before_it_is_read() {
    let bundle = Bundle::new();
    let line = bundle.line();
    assert_eq!(bundle.code(&vec![0; MAX_COMPONENT + 1], &line), "E_SIZE");
    let padded = line.trim_end().to_owned() + &" ".repeat(MAX_STATEMENTS) + "\n";
    assert_eq!(bundle.code(&bundle.component, &padded), "E_SIZE");
    let small = bundle.envelope(PAYLOAD_TYPE, b"{}");
    assert_eq!(bundle.code(&bundle.component, &small.repeat(MAX_LINES + 1)), "E_SIZE");
    let mut envelope: Envelope = serde_json::from_str(&line).unwrap();
    let filler = Signature { keyid: String::new(), sig: String::new() };
    envelope.signatures.splice(0..0, std::iter::repeat_n(filler, MAX_SIGNATURES));
    assert_eq!(bundle.code(&bundle.component, &serde_json::to_string(&envelope).unwrap()), "E_SIGNATURES");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(bundle.code(&bundle.component, &deep), "E_JSON_DEPTH");
    assert_eq!(bundle.payload(deep.as_bytes()), "E_JSON_DEPTH");
}

#[test]
fn payloads_are_read_strictly_although_they_are_signed() {
    let bundle = Bundle::new();
    let good = serde_json::to_string(&bundle.statement).unwrap();
    assert_eq!(bundle.payload(good.as_bytes()), "OK");
    assert_eq!(
        bundle.payload(good.replacen("\"epoch\":0", "\"epoch\":0,\"epoch\":0", 1).as_bytes()),
        "E_JSON_DUPLICATE"
    );
    assert_eq!(bundle.payload(good.replacen("\"epoch\":0", "\"epoch\":0.0", 1).as_bytes()), "E_JSON_FLOAT");
    assert_eq!(bundle.payload(good.replacen("\"epoch\":0", "\"epoch\":0,\"more\":0", 1).as_bytes()), "E_FORMAT");
    assert_eq!(bundle.payload(good.replacen("\"epoch\":0,", "", 1).as_bytes()), "E_FORMAT");
    assert_eq!(bundle.payload(format!("{good}{{}}").as_bytes()), "E_FORMAT");
    assert_eq!(bundle.payload(format!("\u{feff}{good}").as_bytes()), "E_JSON_BOM");
    let doubled = bundle.line().replacen("\"payloadType\"", "\"payload\":\"\",\"payloadType\"", 1);
    assert_eq!(bundle.code(&bundle.component, &doubled), "E_JSON_DUPLICATE");
}

#[test]
fn a_statement_that_is_not_about_these_bytes_is_refused() {
    let bundle = Bundle::new();
    assert_eq!(bundle.signed(|_| {}), "OK");
    assert_eq!(bundle.signed(|s| s.kind = "https://in-toto.io/Statement/v0.1".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.predicate_type.push('x')), "E_NO_RELEASE");
    assert_eq!(bundle.signed(|s| s.subject.clear()), "E_SUBJECT");
    assert_eq!(bundle.signed(|s| s.subject.push(s.subject[0].clone())), "E_SUBJECT");
    assert_eq!(bundle.signed(|s| s.subject[0].name = "other.wasm".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.subject[0].name = "sample".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.subject[0].digest.sha256 = "0".repeat(64)), "E_DIGEST");
    assert_eq!(bundle.signed(|s| s.subject[0].digest.sha256.make_ascii_uppercase()), "E_DIGEST");
    assert_eq!(bundle.signed(|s| s.predicate.artifact.size += 1), "E_DIGEST");
    assert_eq!(bundle.signed(|s| s.predicate.artifact.kind = "module".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.predicate.host_api = "1".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.predicate.not_before = "soon".into()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.predicate.not_before = "2030-01-01T00:00:01Z".into()), "E_NOT_YET");
    assert_eq!(bundle.signed(|s| s.predicate.not_before = "2030-01-01T00:00:00Z".into()), "OK");
    let build = |s: &mut Statement| s.predicate.version = "1.4.2+a".parse().unwrap();
    assert_eq!(bundle.signed(build), "E_VERSION");
}

#[test]
fn names_that_look_like_others_or_like_paths_are_refused() {
    let bundle = Bundle::new();
    for name in ["other", "Sample", "s\u{430}mple", "../sample", "sample\0", "sample/", "", "-", "sample-"] {
        let rename = |s: &mut Statement| {
            s.predicate.plugin = name.to_owned();
            s.subject[0].name = format!("{name}.wasm");
        };
        let wanted = if name == "other" { "E_PLUGIN" } else { "E_NAME" };
        assert_eq!(bundle.signed(rename), wanted, "{name:?}");
    }
    // Without an expectation a well-formed name passes, and still only that.
    let verify = |name: &str| {
        let mut statement = bundle.statement.clone();
        statement.predicate.plugin = name.to_owned();
        statement.subject[0].name = format!("{name}.wasm");
        let line = sign_release(&statement, &[&bundle.key]).unwrap();
        verify(&bundle.component, &line, &[bundle.key.public()], None, now()).map_or_else(|r| r.code(), |_| "OK")
    };
    assert_eq!((verify("other"), verify("Other")), ("OK", "E_NAME"));
}

#[test]
fn declared_imports_are_the_real_ones() {
    let bundle = Bundle::new();
    assert_eq!(bundle.signed(|s| drop(s.predicate.imports.remove(0))), "E_IMPORTS");
    assert_eq!(bundle.signed(|s| s.predicate.imports.push("wasi:sockets/tcp@0.2.6".into())), "E_IMPORTS");
    assert_eq!(bundle.signed(|s| s.predicate.imports.reverse()), "E_STATEMENT");
    assert_eq!(bundle.signed(|s| s.predicate.imports.push(s.predicate.imports[2].clone())), "E_STATEMENT");
    let mut statement = bundle.statement.clone();
    statement.predicate.imports.remove(0);
    let refusal = bundle.verify(&bundle.component, &sign_release(&statement, &[&bundle.key]).unwrap()).unwrap_err();
    assert!(refusal.to_string().contains("viworks:gateway/accounts@1.0.0 imported but not declared"), "{refusal}");
}

#[test]
fn verbs_are_there_and_well_formed() {
    let bundle = Bundle::new();
    assert_eq!(bundle.signed(|s| s.predicate.verbs.clear()), "E_VERBS");
    let touch = |change: fn(&mut Verb)| bundle.signed(|s| change(s.predicate.verbs.get_mut("touch").unwrap()));
    assert_eq!(touch(|_| {}), "OK");
    assert_eq!(touch(|verb| verb.function = "other".into()), "E_VERBS");
    assert_eq!(touch(|verb| verb.timeout_secs = 0), "E_VERBS");
    assert_eq!(touch(|verb| verb.args = json!({ "type": "object" })), "E_VERBS");
    assert_eq!(touch(|verb| verb.args = json!(true)), "E_VERBS");
    assert_eq!(touch(|verb| verb.result = Value::Null), "E_VERBS");
    let rename = |s: &mut Statement| {
        let verb = s.predicate.verbs.remove("touch").unwrap();
        s.predicate.verbs.insert("Touch".into(), Verb { function: "Touch".into(), ..verb });
    };
    assert_eq!(bundle.signed(rename), "E_VERBS");
}

#[test]
fn what_is_no_component_is_refused_although_it_is_signed() {
    let bundle = Bundle::new();
    let code = |bytes: &[u8]| {
        let mut statement = bundle.statement.clone();
        statement.subject[0].digest.sha256 = hex::encode(Sha256::digest(bytes));
        statement.predicate.artifact.size = bytes.len() as u32;
        bundle.code(bytes, &sign_release(&statement, &[&bundle.key]).unwrap())
    };
    assert_eq!(code(&bundle.component), "OK");
    let mut core = bundle.component.clone();
    core[4..8].copy_from_slice(&[1, 0, 0, 0]);
    assert_eq!(code(&core), "E_CORE_MODULE");
    assert_eq!(bundle.code(&core, &bundle.line()), "E_CORE_MODULE", "flipped on the way");
    assert_eq!(code(b"\0asm\x01\0\0\0"), "E_CORE_MODULE");
    assert_eq!(code(b"\x7fELF\x02\x01\x01\0"), "E_PRECOMPILED");
    assert_eq!(bundle.code(b"\x7fELF\x02\x01\x01\0", &bundle.line()), "E_PRECOMPILED", "a .cwasm named .wasm");
    assert_eq!(code(b""), "E_COMPONENT");
    assert_eq!(code(&bundle.component[..bundle.component.len() - 3]), "E_COMPONENT");
}

#[test]
fn another_plugins_valid_bundle_is_refused() {
    let bundle = Bundle::new();
    let other = component(
        "package example:t@1.0.0;
         interface verbs { use viworks:gateway/types@1.0.0.{failure}; touch: func() -> result<_, failure>; }
         world plugin { export verbs; }",
    );
    let mut manifest = sample_manifest();
    manifest.id = "other".into();
    manifest.verbs.retain(|name, _| name == "touch");
    manifest.capabilities = crate::grant::Scopes::default();
    let line = sign_release(&build_release(&other, &manifest).unwrap(), &[&bundle.key]).unwrap();
    assert_eq!(bundle.code(&other, &line), "E_PLUGIN");
    assert_eq!(bundle.code(&bundle.component, &line), "E_DIGEST", "its statement with our bytes");
    assert_eq!(bundle.code(&other, &bundle.line()), "E_DIGEST", "our statement with its bytes");
}
