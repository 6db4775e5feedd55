//! Attacks on a bundle, one function each: what the attacker holds in, the code of the
//! refusal out. Whoever wants to run them brings two components with their manifests.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, SystemTime};
use viworks_signing::dsse::{Envelope, MAX_SIGNATURES, Signature};
use viworks_signing::keys::{PublicKey, SecretKey};
use viworks_signing::manifest::Manifest;
use viworks_signing::publish::{build_release, sign_provenance, sign_release, sign_review};
use viworks_signing::release::{PAYLOAD_TYPE, Statement};
use viworks_signing::review::{self, Allowance};
use viworks_signing::succession::{self, Seen};
use viworks_signing::trust::{Role, Trust};
use viworks_signing::verify::{MAX_LINES, VerifiedRelease, verify_with};
use viworks_signing::{policy, provenance};

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// The code that must refuse it.
    pub wanted: &'static str,
    /// What it was refused with, or `ACCEPTED`.
    pub run: fn(&World) -> String,
}

/// Two plugins, their keys, and a host that wants the first.
pub struct World {
    component: Vec<u8>,
    manifest: Manifest,
    statement: Statement,
    other: (Vec<u8>, Statement),
    release: SecretKey,
    second: SecretKey,
    security: SecretKey,
    stranger: SecretKey,
}

const ACCEPTED: &str = "ACCEPTED";

impl World {
    /// `wanted` is the plugin that the host asks for; `other` has another id and is
    /// released by the same key.
    pub fn new(wanted: (Vec<u8>, Manifest), other: (Vec<u8>, Manifest)) -> Self {
        let (component, manifest) = wanted;
        let statement = build_release(&component, &manifest).unwrap();
        let other_statement = build_release(&other.0, &other.1).unwrap();
        Self {
            component,
            manifest,
            statement,
            other: (other.0, other_statement),
            release: SecretKey::generate(),
            second: SecretKey::generate(),
            security: SecretKey::generate(),
            stranger: SecretKey::generate(),
        }
    }

    fn trust(&self, threshold: u32, reviews: u32) -> Trust {
        let release = Role::new(threshold, [self.release.public(), self.second.public()]).unwrap();
        Trust::new(release, Role::new(reviews, [self.security.public()]).unwrap()).unwrap()
    }

    fn line(&self) -> String {
        sign_release(&self.statement, &[&self.release]).unwrap()
    }

    fn verify(&self, component: &[u8], statements: &str, trust: &Trust) -> Result<VerifiedRelease, String> {
        // Long after every manifest's not_before.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let verified = verify_with(component, statements, trust, Some(&self.manifest.id), now);
        verified.map_err(|refusal| refusal.code().to_owned())
    }

    fn code(&self, component: &[u8], statements: &str) -> String {
        self.with(component, statements, &self.trust(1, 0))
    }

    fn with(&self, component: &[u8], statements: &str, trust: &Trust) -> String {
        self.verify(component, statements, trust).map_or_else(|code| code, |_| ACCEPTED.to_owned())
    }

    /// A statement that the release key signed although it should not have.
    fn signed(&self, change: impl FnOnce(&mut Statement)) -> String {
        let mut statement = self.statement.clone();
        change(&mut statement);
        self.code(&self.component, &sign_release(&statement, &[&self.release]).unwrap())
    }

    /// Any payload, signed by the release key.
    fn payload(&self, payload: &str) -> String {
        self.code(&self.component, &text(&Envelope::sign(PAYLOAD_TYPE, payload.as_bytes(), &[&self.release])))
    }

    fn statement_text(&self) -> String {
        serde_json::to_string(&self.statement).unwrap()
    }

    fn envelope(&self) -> Envelope {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn tampered(&self, change: impl FnOnce(&mut Envelope)) -> String {
        let mut envelope = self.envelope();
        change(&mut envelope);
        self.code(&self.component, &text(&envelope))
    }

    fn review_of(&self, statement: &Statement, key: &SecretKey) -> String {
        let payload = serde_json::to_vec(statement).unwrap();
        let digest = hex::encode(Sha256::digest(payload));
        let subject = &statement.subject[0].digest.sha256;
        let allowance = Allowance::all(&statement.predicate);
        let review = review::statement(&statement.predicate, subject, &digest, allowance, "2030-01-01T00:00:00Z", "");
        sign_review(&review, &[key]).unwrap()
    }

    fn provenance(&self, digest: &str) -> String {
        let facts = provenance::Facts { builder: "https://ci.example.com".into(), ..provenance::Facts::default() };
        let name = format!("{}.wasm", self.manifest.id);
        sign_provenance(&provenance::statement(&name, digest, facts.provenance()), &[&self.release]).unwrap()
    }

    fn seen(&self, change: impl FnOnce(&mut Statement), digest: &str) -> String {
        let seen = Seen::of(&self.statement.predicate, &self.statement.subject[0].digest.sha256);
        let mut next = self.statement.clone();
        change(&mut next);
        succession::check([&seen], &next.predicate, digest)
            .map_or_else(|r| r.code().to_owned(), |()| ACCEPTED.to_owned())
    }
}

fn text(envelope: &Envelope) -> String {
    serde_json::to_string(envelope).unwrap() + "\n"
}

fn custom_section(name: &str) -> Vec<u8> {
    let mut data = vec![u8::try_from(name.len()).unwrap()];
    data.extend_from_slice(name.as_bytes());
    data.push(0);
    let mut section = vec![0, u8::try_from(data.len()).unwrap()];
    section.extend(data);
    section
}

/// The same signature as S + L, which lax verifiers take.
fn plus_l(sig: &str) -> String {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = STANDARD.decode(sig).unwrap();
    let mut carry = 0u16;
    for (byte, l) in bytes[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(l);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    STANDARD.encode(bytes)
}

fn attack(name: &'static str, wanted: &'static str, run: fn(&World) -> String) -> Attack {
    Attack { name, wanted, run }
}

/// Every attack on a bundle.
pub fn all() -> Vec<Attack> {
    let mut attacks = signatures();
    attacks.extend(statements());
    attacks.extend(bytes());
    attacks.extend(endless());
    attacks
}

fn signatures() -> Vec<Attack> {
    vec![
        attack("unknown key", "E_SIGNATURE", |w| {
            w.code(&w.component, &sign_release(&w.statement, &[&w.stranger]).unwrap())
        }),
        attack("unknown key under a trusted key's id", "E_ALTERED", |w| {
            let mut envelope: Envelope =
                serde_json::from_str(&sign_release(&w.statement, &[&w.stranger]).unwrap()).unwrap();
            envelope.signatures[0].keyid = w.release.public().id();
            w.code(&w.component, &text(&envelope))
        }),
        attack("release signed by a security key", "E_ROLE", |w| {
            w.code(&w.component, &sign_release(&w.statement, &[&w.security]).unwrap())
        }),
        attack("review signed by a release key", "E_ROLE", |w| {
            let review = w.review_of(&w.statement, &w.second);
            w.with(&w.component, &(w.line() + &review), &w.trust(1, 1))
        }),
        attack("weak key", "E_WEAK_KEY", |_| {
            let mut identity = [0; 32];
            identity[0] = 1;
            PublicKey::from_bytes(&identity).map_or_else(|error| error.code().to_owned(), |_| ACCEPTED.to_owned())
        }),
        attack("weak key in a policy", "E_WEAK_KEY", |_| {
            let text = "[signers]\nrelease = { keys = ['''-----BEGIN PUBLIC KEY-----\n\
                MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----'''] }";
            let sources = policy::Sources { known: &[], read: &|_| Err(String::new()) };
            match policy::Policy::parse(text, &sources) {
                Ok(_) => ACCEPTED.to_owned(),
                Err(error) if error.to_string().contains("(E_WEAK_KEY)") => "E_WEAK_KEY".to_owned(),
                Err(error) => error.to_string(),
            }
        }),
        attack("malleable signature, S + L", "E_MALLEABLE", |w| {
            w.tampered(|envelope| envelope.signatures[0].sig = plus_l(&envelope.signatures[0].sig))
        }),
        attack("signature in other base64", "E_MALLEABLE", |w| {
            w.tampered(|envelope| {
                envelope.signatures[0].sig = envelope.signatures[0].sig.trim_end_matches('=').to_owned()
            })
        }),
        attack("threshold stuffed with one signature twice", "E_THRESHOLD", |w| {
            let line = sign_release(&w.statement, &[&w.release, &w.release]).unwrap();
            w.with(&w.component, &line, &w.trust(2, 0))
        }),
        attack("threshold stuffed with one key under two ids", "E_THRESHOLD", |w| {
            let mut envelope: Envelope =
                serde_json::from_str(&sign_release(&w.statement, &[&w.release, &w.release]).unwrap()).unwrap();
            envelope.signatures[1].keyid = w.second.public().id();
            w.with(&w.component, &text(&envelope), &w.trust(2, 0))
        }),
        attack("threshold stuffed with a stranger", "E_THRESHOLD", |w| {
            let line = sign_release(&w.statement, &[&w.release, &w.stranger]).unwrap();
            w.with(&w.component, &line, &w.trust(2, 0))
        }),
        attack("payload signed without its type (PAE confusion)", "E_ALTERED", |w| {
            w.tampered(|envelope| {
                let payload = STANDARD.decode(&envelope.payload).unwrap();
                envelope.signatures[0].sig = STANDARD.encode(w.release.sign(&payload));
            })
        }),
        attack("payload signed as another type (PAE confusion)", "E_ALTERED", |w| {
            let payload = w.statement_text();
            let mut envelope =
                Envelope::sign("application/vnd.viworks.warrant.v1+json", payload.as_bytes(), &[&w.release]);
            envelope.payload_type = PAYLOAD_TYPE.to_owned();
            w.code(&w.component, &text(&envelope))
        }),
        attack("an envelope of another type", "E_PAYLOAD_TYPE", |w| {
            let payload = w.statement_text();
            let envelope = Envelope::sign("application/vnd.viworks.warrant.v1+json", payload.as_bytes(), &[&w.release]);
            w.code(&w.component, &text(&envelope))
        }),
    ]
}

fn statements() -> Vec<Attack> {
    vec![
        attack("only a provenance line", "E_NO_RELEASE", |w| {
            w.code(&w.component, &w.provenance(&w.statement.subject[0].digest.sha256))
        }),
        attack("provenance of other bytes", "E_PROVENANCE", |w| {
            w.code(&w.component, &(w.line() + &w.provenance(&"0".repeat(64))))
        }),
        attack("two releases at once", "E_AMBIGUOUS", |w| w.code(&w.component, &(w.line() + &w.line()))),
        attack("another plugin's valid bundle", "E_PLUGIN", |w| {
            w.code(&w.other.0, &sign_release(&w.other.1, &[&w.release]).unwrap())
        }),
        attack("another plugin's bytes with this statement", "E_DIGEST", |w| w.code(&w.other.0, &w.line())),
        attack("no review where one is needed", "E_REVIEW_MISSING", |w| {
            w.with(&w.component, &w.line(), &w.trust(1, 1))
        }),
        attack("review of another plugin (mix and match)", "E_REVIEW_MISMATCH", |w| {
            let review = w.review_of(&w.other.1, &w.security);
            w.with(&w.component, &(w.line() + &review), &w.trust(1, 1))
        }),
        attack("review of the same bytes with a lesser manifest", "E_REVIEW_MISMATCH", |w| {
            let mut lesser = w.statement.clone();
            lesser.predicate.capabilities = Default::default();
            let review = w.review_of(&lesser, &w.security);
            w.with(&w.component, &(w.line() + &review), &w.trust(1, 1))
        }),
        attack("duplicate JSON key", "E_JSON_DUPLICATE", |w| {
            w.payload(&w.statement_text().replacen("\"epoch\":", "\"epoch\":9,\"epoch\":", 1))
        }),
        attack("float where a whole number is", "E_JSON_FLOAT", |w| {
            w.payload(&w.statement_text().replacen("\"epoch\":", "\"more\":1e3,\"epoch\":", 1))
        }),
        attack("byte order mark", "E_JSON_BOM", |w| w.payload(&format!("\u{feff}{}", w.statement_text()))),
        attack("trailing data", "E_FORMAT", |w| w.payload(&format!("{}{{}}", w.statement_text()))),
        attack("same version with a new digest", "E_VERSION_REUSED", |w| {
            w.seen(|next| next.predicate.sequence += 1, &"0".repeat(64))
        }),
        attack("same sequence with a new digest", "E_SEQUENCE_REUSED", |w| {
            w.seen(|next| next.predicate.version.patch += 1, &"0".repeat(64))
        }),
        attack("an older sequence", "E_ROLLBACK", |w| {
            w.seen(|next| next.predicate.sequence -= 1, &w.statement.subject[0].digest.sha256)
        }),
        attack("version +a against +b", "E_VERSION", |w| {
            w.signed(|s| s.predicate.version = format!("{}+b", s.predicate.version).parse().unwrap())
        }),
        attack("homoglyph in the name", "E_NAME", |w| renamed(w, &w.manifest.id.replacen('a', "\u{430}", 1))),
        attack("capital in the name", "E_NAME", |w| renamed(w, &w.manifest.id.to_uppercase())),
        attack("../ in the name", "E_NAME", |w| renamed(w, &format!("../{}", w.manifest.id))),
        attack("NUL in the name", "E_NAME", |w| renamed(w, &format!("{}\0", w.manifest.id))),
        attack("undeclared import", "E_IMPORTS", |w| w.signed(|s| drop(s.predicate.imports.pop()))),
        attack("not valid yet", "E_NOT_YET", |w| w.signed(|s| s.predicate.not_before = "2999-01-01T00:00:00Z".into())),
    ]
}

fn renamed(w: &World, name: &str) -> String {
    w.signed(|s| {
        s.predicate.plugin = name.to_owned();
        s.subject[0].name = format!("{name}.wasm");
    })
}

fn bytes() -> Vec<Attack> {
    vec![
        attack("one bit flipped", "E_DIGEST", |w| {
            let mut bytes = w.component.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            w.code(&bytes, &w.line())
        }),
        attack("custom section added", "E_DIGEST", |w| {
            w.code(&[w.component.as_slice(), &custom_section("note")].concat(), &w.line())
        }),
        attack("custom section removed", "E_DIGEST", |w| {
            let (with, line) = sectioned(w);
            w.code(&with[..with.len() - custom_section("note").len()], &line)
        }),
        attack("custom section moved", "E_DIGEST", |w| {
            let (with, line) = sectioned(w);
            let at = with.len() - custom_section("note").len();
            w.code(&[&with[..8], &with[at..], &with[8..at]].concat(), &line)
        }),
        attack("preamble flipped to a core module", "E_CORE_MODULE", |w| {
            let mut bytes = w.component.clone();
            bytes[4..8].copy_from_slice(&[1, 0, 0, 0]);
            w.code(&bytes, &w.line())
        }),
        attack("core module, and signed", "E_CORE_MODULE", |w| signed_bytes(w, b"\0asm\x01\0\0\0")),
        attack(".cwasm named .wasm", "E_PRECOMPILED", |w| w.code(b"\x7fELF\x02\x01\x01\0precompiled", &w.line())),
        attack(".cwasm, and signed", "E_PRECOMPILED", |w| signed_bytes(w, b"\x7fELF\x02\x01\x01\0precompiled")),
        attack("cut short, and signed", "E_COMPONENT", |w| signed_bytes(w, &w.component[..w.component.len() - 3])),
    ]
}

/// The component with a custom section at its end, and its own signed statement.
fn sectioned(w: &World) -> (Vec<u8>, String) {
    let with = [w.component.as_slice(), &custom_section("note")].concat();
    let statement = build_release(&with, &w.manifest).unwrap();
    let line = sign_release(&statement, &[&w.release]).unwrap();
    assert_eq!(w.code(&with, &line), ACCEPTED, "whole, it is a good bundle");
    (with, line)
}

fn signed_bytes(w: &World, bytes: &[u8]) -> String {
    let mut statement = w.statement.clone();
    statement.subject[0].digest.sha256 = hex::encode(Sha256::digest(bytes));
    statement.predicate.artifact.size = u32::try_from(bytes.len()).unwrap();
    w.code(bytes, &sign_release(&statement, &[&w.release]).unwrap())
}

fn endless() -> Vec<Attack> {
    vec![
        attack("endless: 100,000 signatures", "E_SIZE", |w| {
            w.tampered(|envelope| envelope.signatures = vec![envelope.signatures[0].clone(); 100_000])
        }),
        attack("endless: more signatures than are read", "E_SIGNATURES", |w| {
            let filler = Signature { keyid: String::new(), sig: String::new() };
            w.tampered(|envelope| envelope.signatures.extend(std::iter::repeat_n(filler, MAX_SIGNATURES)))
        }),
        attack("endless: deep JSON", "E_JSON_DEPTH", |w| w.payload(&"[".repeat(50_000))),
        attack("endless: one line too many", "E_SIZE", |w| {
            let line = text(&Envelope::sign(PAYLOAD_TYPE, b"{}", &[&w.stranger]));
            w.code(&w.component, &(w.line() + &line.repeat(MAX_LINES)))
        }),
        attack("endless: component over the cap", "E_SIZE", |w| {
            w.code(&vec![0; viworks_signing::verify::MAX_COMPONENT + 1], &w.line())
        }),
    ]
}

/// The good bundle, reviewed, with provenance: must pass, or the attacks prove nothing.
pub fn good(w: &World) -> Result<VerifiedRelease, String> {
    let line = sign_release(&w.statement, &[&w.release, &w.second]).unwrap();
    let review = w.review_of(&w.statement, &w.security);
    let provenance = w.provenance(&w.statement.subject[0].digest.sha256);
    w.verify(&w.component, &(provenance + &line + &review), &w.trust(2, 1))
}
