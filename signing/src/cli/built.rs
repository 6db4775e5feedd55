//! The arguments that say how a component was built, for its provenance line. Refuses a
//! predicate that SLSA would not take.

use clap::Args;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::provenance::{Facts, Provenance, Resource, is_uri};
use viworks_signing::strict_json::{self, Floats};

use super::{Error, files};

/// A material is read whole up to so many bytes.
const MAX_MATERIAL: usize = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Provenance (SLSA v1), a further line")]
pub(crate) struct Built {
    /// JSON file with the SLSA provenance v1 predicate, as a builder wrote it
    #[arg(long, value_name = "FILE")]
    provenance: Option<PathBuf>,
    /// Who builds, a URI: makes the predicate from this and the following
    #[arg(long, value_name = "URI", conflicts_with = "provenance")]
    builder: Option<String>,
    /// The source, with its commit
    #[arg(long, value_name = "URI@COMMIT", requires = "builder")]
    source: Option<String>,
    /// A file that the build read, a lock file for example; may be given several times
    #[arg(long = "material", value_name = "FILE", requires = "builder")]
    materials: Vec<PathBuf>,
    /// The builder's name for this run
    #[arg(long, value_name = "ID", requires = "builder")]
    invocation: Option<String>,
}

impl Built {
    /// The predicate, if anything was said.
    pub(crate) fn provenance(&self) -> Result<Option<Provenance>, Error> {
        let predicate = match (&self.provenance, &self.builder) {
            (Some(path), _) => read(path)?,
            (None, Some(builder)) => self.facts(builder)?.provenance(),
            (None, None) => return Ok(None),
        };
        let path = self.provenance.clone().unwrap_or_else(|| "--builder".into());
        predicate.check().map_err(|what| Error::Provenance { path, what })?;
        Ok(Some(predicate))
    }

    fn facts(&self, builder: &str) -> Result<Facts, Error> {
        let wrong = |text: &str, wanted| Error::Argument { text: text.to_owned(), wanted };
        if !is_uri(builder) {
            return Err(wrong(builder, "a URI, for example https://ci.example.com/runner"));
        }
        let source = |text: &String| {
            let wanted = "URI@COMMIT, for example git+https://git.example.com/plugins@ and 40 hex digits";
            Resource::source(text).ok_or_else(|| wrong(text, wanted))
        };
        Ok(Facts {
            builder: builder.to_owned(),
            source: self.source.as_ref().map(source).transpose()?,
            materials: self.materials.iter().map(|path| material(path)).collect::<Result<_, _>>()?,
            invocation: self.invocation.clone(),
            finished: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        })
    }
}

fn read(path: &Path) -> Result<Provenance, Error> {
    let bytes = files::read(path, files::MAX_TEXT)?;
    strict_json::from_slice(&bytes, files::MAX_TEXT, Floats::Allowed)
        .map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Only the file's name: where it lay says nothing to anybody.
fn material(path: &Path) -> Result<Resource, Error> {
    let digest = hex::encode(Sha256::digest(files::read(path, MAX_MATERIAL)?));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Resource { name, uri: String::new(), digest: BTreeMap::from([("sha256".to_owned(), digest)]) })
}
