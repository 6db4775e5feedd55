//! `viworks-sign inspect`: what a component and its statement say, in plain words.
//! Vouches for nothing: everything it prints is UNVERIFIED, and says so.

mod words;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use viworks_signing::describe::{Description, describe};
use viworks_signing::dsse::Envelope;
use viworks_signing::provenance::{self, Provenance};
use viworks_signing::release::{self, Statement};
use viworks_signing::review::{self, Review};
use viworks_signing::strict_json::{self, Floats};
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS};

use super::bundle::beside;
use super::{Error, Exit, Output, files, output};

/// Show what a component and its statement say, without verifying either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign inspect target/wasm32-wasip2/release/accounts.wasm
  viworks-sign inspect dist/accounts.wasm --output json
Scopes, limits and effects stand in the statements beside the component, as do reviews and provenance.")]
pub(crate) struct Inspect {
    /// The component, signed or not
    component: PathBuf,
    /// The statements, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// What was found, and nothing of it verified.
struct Found {
    digest: String,
    size: usize,
    description: Description,
    statement: Option<Claim>,
    reviews: Vec<Said<Review>>,
    provenance: Vec<Said<Provenance>>,
}

/// What some line says, and whose signatures it says it has.
struct Said<P> {
    predicate: P,
    keyids: Vec<String>,
    /// Whether it is about these bytes, and a review about this release.
    matches: bool,
}

/// A release statement as it stands there.
struct Claim {
    statement: Statement,
    payload_digest: String,
    keyids: Vec<String>,
    /// Whether it is about these bytes.
    matches: bool,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let component = files::read(&self.component, MAX_COMPONENT)?;
        let description =
            describe(&component).map_err(|source| Error::Describe { path: self.component.clone(), source })?;
        let digest = hex::encode(Sha256::digest(&component));
        let lines = self.lines()?;
        let statement = lines.iter().find_map(|line| line.claim(&digest));
        let release = statement.as_ref().map(|claim| claim.payload_digest.clone()).unwrap_or_default();
        let reviews = lines.iter().filter_map(|line| line.review(&release)).collect();
        let provenance = lines.iter().filter_map(|line| line.provenance(&digest)).collect();
        let found = Found { digest, size: component.len(), description, statement, reviews, provenance };
        match self.output {
            Output::Json => output::json(&found.json())?,
            Output::Text => output::lines(words::lines(&found))?,
        }
        Ok(Exit::Done)
    }

    /// The lines that read as envelopes. A file that was not asked for by name may be
    /// missing.
    fn lines(&self) -> Result<Vec<Line>, Error> {
        let path = self.statements.clone().unwrap_or_else(|| beside(&self.component));
        if self.statements.is_none() && !path.exists() {
            return Ok(Vec::new());
        }
        Ok(files::read_text(&path, MAX_STATEMENTS)?.lines().filter_map(Line::read).collect())
    }
}

/// An envelope's payload, and the key ids that stand beside it.
struct Line {
    payload: Vec<u8>,
    keyids: Vec<String>,
}

impl Line {
    fn read(text: &str) -> Option<Self> {
        let envelope: Envelope = strict_json::from_slice(text.as_bytes(), MAX_STATEMENTS, Floats::Refused).ok()?;
        let payload = STANDARD.decode(&envelope.payload).ok()?;
        Some(Self { payload, keyids: envelope.signatures.into_iter().map(|signature| signature.keyid).collect() })
    }

    fn parsed<S: DeserializeOwned>(&self) -> Option<S> {
        strict_json::from_slice(&self.payload, MAX_STATEMENTS, Floats::Allowed).ok()
    }

    fn claim(&self, digest: &str) -> Option<Claim> {
        let statement: Statement = self.parsed()?;
        let matches = statement.subject.iter().any(|subject| subject.digest.sha256 == digest);
        let payload_digest = hex::encode(Sha256::digest(&self.payload));
        (statement.predicate_type == release::PREDICATE_TYPE).then(|| Claim {
            statement,
            payload_digest,
            keyids: self.keyids.clone(),
            matches,
        })
    }

    fn review(&self, release: &str) -> Option<Said<Review>> {
        let statement: review::Statement = self.parsed()?;
        let matches = statement.predicate.release.sha256 == release;
        let said = Said { predicate: statement.predicate, keyids: self.keyids.clone(), matches };
        (statement.predicate_type == review::PREDICATE_TYPE).then_some(said)
    }

    fn provenance(&self, digest: &str) -> Option<Said<Provenance>> {
        let statement: provenance::Statement = self.parsed()?;
        let about = |subject: &provenance::Resource| subject.digest.get("sha256").is_some_and(|found| found == digest);
        let matches = statement.subject.iter().any(about);
        let said = Said { predicate: statement.predicate, keyids: self.keyids.clone(), matches };
        (statement.predicate_type == provenance::PREDICATE_TYPE).then_some(said)
    }
}

impl Found {
    fn json(&self) -> Value {
        let verb = |(name, verb): (&String, &viworks_signing::describe::VerbTypes)| {
            let types = json!({
                "function": verb.function, "docs": verb.docs, "args": verb.args, "result": verb.result,
            });
            (name.clone(), types)
        };
        let claim = self.statement.as_ref();
        json!({
            "result": "unverified",
            "digest": self.digest,
            "size": self.size,
            "world": self.description.world,
            "imports": self.description.imports,
            "verbs": self.description.verbs.iter().map(verb).collect::<Map<_, _>>(),
            "statement": claim.map(|claim| &claim.statement),
            "statement_matches": claim.map(|claim| claim.matches),
            "keyids": claim.map(|claim| &claim.keyids),
            "reviews": self.reviews.iter().map(Said::json).collect::<Vec<_>>(),
            "provenance": self.provenance.iter().map(Said::json).collect::<Vec<_>>(),
        })
    }
}

impl<P: Serialize> Said<P> {
    fn json(&self) -> Value {
        json!({ "predicate": self.predicate, "matches": self.matches, "keyids": self.keyids })
    }
}
