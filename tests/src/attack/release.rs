//! Attacks on a bundle: signatures, statements, bytes and names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::dsse::{Envelope, Signature};
use viworks_signing::keys::{PublicKey, SecretKey};
use viworks_signing::manifest::Manifest;
use viworks_signing::release::{PAYLOAD_TYPE, STATEMENT_TYPE, Statement};
use viworks_signing::review::{self, Allowance};
use viworks_signing::trust::{Role, Trust};
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS, VerifiedRelease, verify_with};
use viworks_signing::{build_release, publish, sign_release};

use super::{ACCEPTED, Answer, Row, control};

type Tried<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(super) const ROWS: &[Row] = &[
    Row::new("unknown-key", "E_SIGNATURE", || signed_by(|_, other| vec![other])),
    Row::new("wrong-role", "E_ROLE", wrong_role),
    Row::new("below-threshold", "E_THRESHOLD", || stuffed(false)),
    Row::new("threshold-stuffing", "E_THRESHOLD", || stuffed(true)),
    Row::new("review-missing", "E_REVIEW_MISSING", || lines(Bundle::line)),
    Row::new("review-of-another-release", "E_REVIEW_MISMATCH", review_of_another),
    Row::new("provenance-alone", "E_NO_RELEASE", provenance_alone),
    Row::new("another-plugins-bundle", "E_PLUGIN", another_plugin),
    Row::new("payload-signed-without-pae", "E_ALTERED", without_pae),
    Row::new("signature-of-another-type", "E_ALTERED", another_type),
    Row::new("payload-type-changed", "E_PAYLOAD_TYPE", || {
        lines(|b| b.with(|envelope| envelope.payload_type = "text/plain".to_owned()))
    }),
    Row::new("weak-key", "E_WEAK_KEY", weak_key),
    Row::new("malleable-signature", "E_MALLEABLE", || {
        lines(|b| b.with(|envelope| plus_l(&mut envelope.signatures[0])))
    }),
    Row::new("signature-in-other-base64", "E_MALLEABLE", || {
        lines(|b| b.with(|envelope| envelope.signatures[0].sig = envelope.signatures[0].sig.replace("==", "")))
    }),
    Row::new("seventeen-signatures", "E_SIGNATURES", || lines(|b| b.with(|envelope| many(envelope, 17)))),
    Row::new("hundred-thousand-signatures", "E_SIZE", || lines(|b| b.with(|envelope| many(envelope, 100_000)))),
    Row::new("endless-statements", "E_SIZE", || lines(|b| Ok(b.line()? + &" ".repeat(MAX_STATEMENTS)))),
    Row::new("endless-component", "E_SIZE", || bytes(|b| b.resize(MAX_COMPONENT + 1, 0))),
    Row::new("deep-json", "E_JSON_DEPTH", || {
        payload(|text| text.replacen('{', &format!("{{\"x\":{},", "[".repeat(99) + &"]".repeat(99)), 1))
    }),
    Row::new("duplicate-json-key", "E_JSON_DUPLICATE", || payload(|text| text.replacen('{', "{\"_type\":\"x\",", 1))),
    Row::new("float-in-json", "E_JSON_FLOAT", || payload(|text| text.replacen("\"epoch\":0", "\"epoch\":0.0", 1))),
    Row::new("byte-order-mark", "E_JSON_BOM", || payload(|text| format!("\u{feff}{text}"))),
    Row::new("trailing-data", "E_FORMAT", || payload(|text| format!("{text}{{}}"))),
    Row::new("undeclared-import", "E_IMPORTS", || statement(|s| drop(s.predicate.imports.pop()))),
    Row::new("core-module-for-component", "E_CORE_MODULE", || forged(b"\0asm\x01\0\0\0".to_vec())),
    Row::new("preamble-flipped", "E_DIGEST", || bytes(|b| b[4] = 1)),
    Row::new("precompiled-code-named-wasm", "E_PRECOMPILED", precompiled),
    Row::new("custom-section-added", "E_DIGEST", || bytes(|b| b.extend_from_slice(&[0, 3, 1, b'x', b'y']))),
    Row::new("custom-section-moved", "E_DIGEST", custom_section_moved),
    Row::new("custom-section-removed", "E_DIGEST", custom_section_removed),
    Row::new("build-metadata-in-version", "E_VERSION", || {
        statement(|s| s.predicate.version.build = "a".parse().unwrap_or_default())
    }),
    Row::new("homoglyph-name", "E_NAME", || named("еcho")),
    Row::new("upper-case-name", "E_NAME", || named("Echo")),
    Row::new("path-in-name", "E_NAME", || named("../echo")),
    Row::new("nul-in-name", "E_NAME", || named("echo\0")),
    Row::new("two-subjects", "E_SUBJECT", || statement(|s| s.subject.push(s.subject[0].clone()))),
    Row::new("two-releases", "E_AMBIGUOUS", || lines(|b| Ok(b.line()? + &b.line()?))),
    Row::new("digest-of-other-bytes", "E_DIGEST", || statement(|s| s.subject[0].digest.sha256 = "0".repeat(64))),
];

/// A signed and reviewed release of the guest `echo`.
pub(crate) struct Bundle {
    pub component: Vec<u8>,
    pub statement: Statement,
    pub release: SecretKey,
    pub security: SecretKey,
    other: SecretKey,
}

impl Bundle {
    pub(crate) fn new() -> Tried<Self> {
        let (component, manifest) = (guest("echo")?, Manifest::parse(&manifest("echo")?)?);
        let statement = build_release(&component, &manifest)?;
        let key = SecretKey::generate;
        Ok(Self { component, statement, release: key(), security: key(), other: key() })
    }

    fn trust(&self, threshold: u32) -> Tried<Trust> {
        let release = Role::new(threshold, [self.release.public(), SecretKey::generate().public()])?;
        Ok(Trust::new(release, Role::new(1, [self.security.public()])?)?)
    }

    fn line(&self) -> Tried<String> {
        Ok(sign_release(&self.statement, &[&self.release])?)
    }

    /// A review of what `line` says.
    fn review(&self, statement: &Statement) -> Tried<String> {
        let payload = serde_json::to_vec(statement)?;
        let digest = hex::encode(Sha256::digest(&payload));
        let component = &statement.subject[0].digest.sha256;
        let allowance = Allowance::all(&statement.predicate);
        let review = review::statement(&statement.predicate, component, &digest, allowance, "2026-01-01T00:00:00Z", "");
        Ok(publish::sign_review(&review, &[&self.security])?)
    }

    pub(crate) fn statements(&self) -> Tried<String> {
        Ok(self.line()? + &self.review(&self.statement)?)
    }

    /// The release line's envelope changed, and the review as it was.
    fn with(&self, change: impl FnOnce(&mut Envelope)) -> Tried<String> {
        let mut envelope: Envelope = serde_json::from_str(&self.line()?)?;
        change(&mut envelope);
        Ok(serde_json::to_string(&envelope)? + "\n" + &self.review(&self.statement)?)
    }

    fn verify(&self, component: &[u8], statements: &str) -> Tried<Result<VerifiedRelease, &'static str>> {
        let verified = verify_with(component, statements, &self.trust(1)?, Some("echo"), SystemTime::now());
        Ok(verified.map_err(|refusal| refusal.code()))
    }

    pub(crate) fn answer(&self, component: &[u8], statements: &str) -> Answer {
        Ok(self.verify(component, statements)?.map_or_else(str::to_owned, |_| ACCEPTED.to_owned()))
    }

    /// Accepted as it is.
    pub(crate) fn controlled() -> Tried<Self> {
        let bundle = Self::new()?;
        control(&bundle.verify(&bundle.component, &bundle.statements()?)?)?;
        Ok(bundle)
    }
}

/// A guest's component, which `make guests` built.
pub(crate) fn guest(name: &str) -> Tried<Vec<u8>> {
    let target = std::env::var_os("VIWORKS_GUESTS_TARGET").map_or_else(|| guests().join("target"), PathBuf::from);
    let path = target.join(format!("wasm32-wasip2/release/viworks_guest_{}.wasm", name.replace('-', "_")));
    std::fs::read(&path).map_err(|error| format!("{}: {error}; run 'make guests' first", path.display()).into())
}

pub(crate) fn manifest(name: &str) -> Tried<String> {
    Ok(std::fs::read_to_string(guests().join(name).join("plugin.toml"))?)
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests")
}

/// The statements are others.
fn lines(make: impl FnOnce(&Bundle) -> Tried<String>) -> Answer {
    let bundle = Bundle::controlled()?;
    bundle.answer(&bundle.component, &make(&bundle)?)
}

/// The bytes are others than those that were signed.
fn bytes(change: impl FnOnce(&mut Vec<u8>)) -> Answer {
    let bundle = Bundle::controlled()?;
    let mut component = bundle.component.clone();
    change(&mut component);
    bundle.answer(&component, &bundle.statements()?)
}

/// The signer itself says something else, and the reviewer reviews that.
fn statement(change: impl FnOnce(&mut Statement)) -> Answer {
    let bundle = Bundle::controlled()?;
    let mut statement = bundle.statement.clone();
    change(&mut statement);
    let line = sign_release(&statement, &[&bundle.release])?;
    bundle.answer(&bundle.component, &(line + &bundle.review(&statement)?))
}

/// The signer's own key signs this text.
fn payload(change: impl FnOnce(&str) -> String) -> Answer {
    let bundle = Bundle::controlled()?;
    let text = serde_json::to_string(&bundle.statement)?;
    let changed = change(&text);
    if changed == text {
        return Err("the text did not change".into());
    }
    let envelope = Envelope::sign(PAYLOAD_TYPE, changed.as_bytes(), &[&bundle.release]);
    bundle.answer(&bundle.component, &(serde_json::to_string(&envelope)? + "\n" + &bundle.review(&bundle.statement)?))
}

/// The signer signs these bytes as if they were the plugin.
fn forged(component: Vec<u8>) -> Answer {
    let bundle = Bundle::controlled()?;
    let mut statement = bundle.statement.clone();
    statement.subject[0].digest.sha256 = hex::encode(Sha256::digest(&component));
    statement.predicate.artifact.size = u32::try_from(component.len())?;
    let line = sign_release(&statement, &[&bundle.release])?;
    bundle.answer(&component, &(line + &bundle.review(&statement)?))
}

fn named(name: &str) -> Answer {
    let bundle = Bundle::controlled()?;
    let mut statement = bundle.statement.clone();
    statement.predicate.plugin = name.to_owned();
    statement.subject[0].name = format!("{name}.wasm");
    let line = sign_release(&statement, &[&bundle.release])?;
    let statements = line + &bundle.review(&statement)?;
    // Whoever asks for that very name does not get it either.
    let verified = verify_with(&bundle.component, &statements, &bundle.trust(1)?, Some(name), SystemTime::now());
    Ok(verified.map_or_else(|refusal| refusal.code().to_owned(), |_| ACCEPTED.to_owned()))
}

fn signed_by(keys: for<'a> fn(&'a Bundle, &'a SecretKey) -> Vec<&'a SecretKey>) -> Answer {
    lines(|bundle| {
        let envelope =
            Envelope::sign(PAYLOAD_TYPE, &serde_json::to_vec(&bundle.statement)?, &keys(bundle, &bundle.other));
        Ok(serde_json::to_string(&envelope)? + "\n" + &bundle.review(&bundle.statement)?)
    })
}

fn wrong_role() -> Answer {
    lines(|bundle| Ok(sign_release(&bundle.statement, &[&bundle.security])? + &bundle.review(&bundle.statement)?))
}

/// Two keys must sign, and one did: once, or under two ids.
fn stuffed(twice: bool) -> Answer {
    let bundle = Bundle::controlled()?;
    let second = SecretKey::generate();
    let release = Role::new(2, [bundle.release.public(), second.public()])?;
    let trust = Trust::new(release, Role::new(1, [bundle.security.public()])?)?;
    let verify = |statements: &str| {
        let verified = verify_with(&bundle.component, statements, &trust, Some("echo"), SystemTime::now());
        verified.map(drop).map_err(|refusal| refusal.code())
    };
    let review = bundle.review(&bundle.statement)?;
    control(&verify(&(sign_release(&bundle.statement, &[&bundle.release, &second])? + &review)))?;
    let statements = bundle.with(|envelope| {
        if twice {
            let keyid = second.public().id();
            envelope.signatures.push(Signature { keyid, sig: envelope.signatures[0].sig.clone() });
        }
    })?;
    Ok(verify(&statements).map_or_else(str::to_owned, |()| ACCEPTED.to_owned()))
}

fn review_of_another() -> Answer {
    lines(|bundle| {
        let mut another = bundle.statement.clone();
        another.predicate.sequence += 1;
        Ok(bundle.line()? + &bundle.review(&another)?)
    })
}

fn provenance_alone() -> Answer {
    lines(|bundle| {
        let statement = serde_json::json!({
            "_type": STATEMENT_TYPE, "subject": bundle.statement.subject,
            "predicateType": "https://example.com/unknown/v1", "predicate": {},
        });
        let envelope = Envelope::sign(PAYLOAD_TYPE, statement.to_string().as_bytes(), &[&bundle.release]);
        Ok(serde_json::to_string(&envelope)? + "\n")
    })
}

fn another_plugin() -> Answer {
    let bundle = Bundle::controlled()?;
    let trust = bundle.trust(1)?;
    let verified = verify_with(&bundle.component, &bundle.statements()?, &trust, Some("nap"), SystemTime::now());
    Ok(verified.map_or_else(|refusal| refusal.code().to_owned(), |_| ACCEPTED.to_owned()))
}

/// A point of small order, for which anything can be signed.
fn weak_key() -> Answer {
    let mut identity = [0u8; 32];
    control(&PublicKey::from_bytes(&SecretKey::generate().public().bytes()))?;
    identity[0] = 1;
    Ok(PublicKey::from_bytes(&identity).map_or_else(|error| error.code().to_owned(), |_| ACCEPTED.to_owned()))
}

fn without_pae() -> Answer {
    lines(|bundle| {
        let payload = serde_json::to_vec(&bundle.statement)?;
        bundle.with(|envelope| envelope.signatures[0].sig = STANDARD.encode(bundle.release.sign(&payload)))
    })
}

/// A signature over the same bytes as something that is no statement.
fn another_type() -> Answer {
    lines(|bundle| {
        let payload = serde_json::to_vec(&bundle.statement)?;
        let other = Envelope::sign("application/vnd.viworks.warrant.v1+json", &payload, &[&bundle.release]);
        bundle.with(|envelope| envelope.signatures = other.signatures)
    })
}

/// S + L verifies with a lax verifier.
pub(super) fn plus_l(signature: &mut Signature) {
    let mut bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
    add_l(&mut bytes);
    signature.sig = STANDARD.encode(bytes);
}

/// Adds the group's order to the second half.
pub(super) fn add_l(signature: &mut [u8]) {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    for (byte, l) in signature.iter_mut().skip(32).zip(L) {
        carry += u16::from(*byte) + u16::from(l);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
}

fn many(envelope: &mut Envelope, count: usize) {
    envelope.signatures = vec![envelope.signatures[0].clone(); count];
}

fn precompiled() -> Answer {
    let compiled = wasmtime::Engine::default().precompile_component(b"\0asm\x0d\0\x01\0").map_err(|e| e.to_string())?;
    forged(compiled)
}

/// A component with a custom section at its end, signed like that.
fn with_section() -> Tried<Bundle> {
    let mut bundle = Bundle::new()?;
    bundle.component.extend_from_slice(&[0, 3, 1, b'x', b'y']);
    bundle.statement = build_release(&bundle.component, &Manifest::parse(&manifest("echo")?)?)?;
    control(&bundle.verify(&bundle.component, &bundle.statements()?)?)?;
    Ok(bundle)
}

fn custom_section_moved() -> Answer {
    let bundle = with_section()?;
    let (rest, section) = bundle.component.split_at(bundle.component.len() - 5);
    let moved = [&rest[..8], section, &rest[8..]].concat();
    bundle.answer(&moved, &bundle.statements()?)
}

fn custom_section_removed() -> Answer {
    let bundle = with_section()?;
    bundle.answer(&bundle.component[..bundle.component.len() - 5], &bundle.statements()?)
}
