//! `viworks plugin inspect`: a component's own account of itself. Says nothing of who
//! signed it: that is `viworks-sign inspect`'s.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use viworks_signing::describe::{Description, describe};

use super::Error;
use crate::error::Error as CliError;
use crate::output::{Out, Table, first_sentence};
use crate::typing::expectation;

#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The component.
    file: PathBuf,
}

impl Inspect {
    pub(super) fn run(self, out: &Out) -> Result<(), CliError> {
        let bytes = fs::read(&self.file).map_err(CliError::file("read it", &self.file))?;
        let description = describe(&bytes).map_err(|source| Error::Describe { path: self.file.clone(), source })?;
        let digest = hex::encode(Sha256::digest(&bytes));
        let value = json!({
            "world": description.world,
            "size": bytes.len(),
            "sha256": digest,
            "imports": description.imports,
            "verbs": as_json(&description),
        });
        out.show(&value, |_| {
            let verbs = description.verbs.iter().map(|(name, verb)| (name.as_str(), &verb.args, verb.docs.as_str()));
            format!(
                "{}: {} bytes, sha256 {digest}\nimports {}\n\n{}",
                description.world,
                bytes.len(),
                description.imports.join("\n        "),
                self::verbs(verbs)
            )
        })
    }
}

fn as_json(description: &Description) -> Map<String, Value> {
    let verbs = description.verbs.iter().map(|(name, verb)| {
        let shown = json!({ "function": verb.function, "docs": verb.docs, "args": verb.args, "result": verb.result });
        (name.clone(), shown)
    });
    verbs.collect()
}

/// A row for each argument of each verb.
pub(super) fn verbs<'a>(verbs: impl Iterator<Item = (&'a str, &'a Value, &'a str)>) -> Table {
    let mut table = Table::new(["VERB", "ARGUMENT", "EXPECTED"]);
    for (name, args, docs) in verbs {
        table.row([name.to_owned(), String::new(), first_sentence(docs)]);
        let required = args["required"].as_array().map_or(&[][..], Vec::as_slice);
        for (arg, schema) in args["properties"].as_object().into_iter().flatten() {
            let needed = required.iter().any(|name| name.as_str() == Some(arg));
            let arg = if needed { arg.clone() } else { format!("[{arg}]") };
            table.row([String::new(), arg, expectation(schema)]);
        }
    }
    table
}
