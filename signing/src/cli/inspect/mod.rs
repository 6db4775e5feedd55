//! `viworks-sign inspect`: what a component and its statement say, in plain words.
//! Vouches for nothing: everything it prints is UNVERIFIED, and says so.

mod words;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use viworks_signing::describe::{Description, describe};
use viworks_signing::dsse::Envelope;
use viworks_signing::release::{PREDICATE_TYPE, Statement};
use viworks_signing::strict_json::{self, Floats};
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS};

use super::verify::beside;
use super::{Error, Exit, Output, files, output};

/// Show what a component and its statement say, without verifying either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign inspect target/wasm32-wasip2/release/accounts.wasm
  viworks-sign inspect dist/accounts.wasm --output json
Scopes, limits and effects stand in the statement beside the component, if there is one.")]
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
}

/// A release statement as it stands there.
struct Claim {
    statement: Statement,
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
        let statement = self.claim(&digest)?;
        let found = Found { digest, size: component.len(), description, statement };
        match self.output {
            Output::Json => output::json(&found.json())?,
            Output::Text => output::lines(words::lines(&found))?,
        }
        Ok(Exit::Done)
    }

    /// The first line that reads as a release statement. A file that was not asked for by
    /// name may be missing.
    fn claim(&self, digest: &str) -> Result<Option<Claim>, Error> {
        let path = self.statements.clone().unwrap_or_else(|| beside(&self.component));
        if self.statements.is_none() && !path.exists() {
            return Ok(None);
        }
        let text = files::read_text(&path, MAX_STATEMENTS)?;
        Ok(text.lines().find_map(claim).map(|(statement, keyids)| {
            let matches = statement.subject.iter().any(|subject| subject.digest.sha256 == digest);
            Claim { statement, keyids, matches }
        }))
    }
}

fn claim(line: &str) -> Option<(Statement, Vec<String>)> {
    let envelope: Envelope = strict_json::from_slice(line.as_bytes(), MAX_STATEMENTS, Floats::Refused).ok()?;
    let payload = STANDARD.decode(&envelope.payload).ok()?;
    let statement: Statement = strict_json::from_slice(&payload, MAX_STATEMENTS, Floats::Refused).ok()?;
    let keyids = envelope.signatures.into_iter().map(|signature| signature.keyid).collect();
    (statement.predicate_type == PREDICATE_TYPE).then_some((statement, keyids))
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
        })
    }
}
