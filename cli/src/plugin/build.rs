//! `viworks plugin build`: cargo, then docs from the WIT into the component, then the
//! check that signing will make too. Refuses to write what could not be released.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use viworks_signing::manifest::Manifest;
use viworks_signing::pack::pack;
use viworks_signing::publish::build_release;
use viworks_signing::release::Statement;

use super::cargo::Crate;
use super::{Error, gateway_wit, inspect};
use crate::error::Error as CliError;
use crate::output::Out;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder holds plugin.toml, wit/ and a crate. Plugins in other languages are built by
their own tools and given with --component.

Examples:
  viworks plugin build plugins/accounts --out dist
  viworks plugin build plugins/accounts --check --out dist   # before signing: the same bytes twice
  viworks plugin build cache --component cache/cache.wasm --out dist")]
pub struct Build {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where ID.wasm goes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Take this component and build nothing.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Build twice more, from nothing and in other folders, and refuse other bytes.
    #[arg(long, conflicts_with = "component")]
    check: bool,
    /// A WIT package that wit/ uses, other than the gateway's.
    #[arg(long, value_name = "DIR")]
    wit: Vec<PathBuf>,
}

impl Build {
    pub(super) fn run(self, out: &Out) -> Result<(), CliError> {
        let manifest_path = self.dir.join("plugin.toml");
        let text = fs::read_to_string(&manifest_path).map_err(CliError::file("read it", &manifest_path))?;
        let manifest = Manifest::parse(&text).map_err(|source| Error::Manifest { path: manifest_path, source })?;

        let (built, component) = match &self.component {
            Some(path) => (path.clone(), fs::read(path).map_err(CliError::file("read it", path))?),
            None if self.check => self.twice(out)?,
            None => {
                let built = Crate::at(&self.dir)?.build(None)?;
                let component = fs::read(&built).map_err(CliError::file("read it", &built))?;
                (built, component)
            }
        };
        let component = self.with_docs(&built, component, out)?;
        let statement = build_release(&component, &manifest)
            .map_err(|source| Error::Release { path: built, source: Box::new(source) })?;

        fs::create_dir_all(&self.out).map_err(CliError::file("make the folder", &self.out))?;
        let path = self.out.join(format!("{}.wasm", manifest.id));
        fs::write(&path, &component).map_err(CliError::file("write it", &path))?;
        out.show(&serde_json::to_value(&statement).unwrap_or_default(), |_| told(&path, &statement))
    }

    /// Two builds that share nothing but the source: whoever builds it again gets the same
    /// bytes, or learns here that he would not.
    fn twice(&self, out: &Out) -> Result<(PathBuf, Vec<u8>), CliError> {
        let source = Crate::at(&self.dir)?;
        let mut first: Option<(PathBuf, Vec<u8>)> = None;
        for name in ["first", "the-second-of-two-builds"] {
            let folder = tempfile::tempdir().map_err(CliError::file("make the folder", std::env::temp_dir()))?;
            let built = source.build(Some(&folder.path().join(name)))?;
            let component = fs::read(&built).map_err(CliError::file("read it", &built))?;
            match &first {
                None => first = Some((built, component)),
                Some((_, before)) if *before == component => {}
                Some((_, before)) => {
                    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
                    return Err(Error::Differs { first: digest(before), second: digest(&component) }.into());
                }
            }
        }
        let both = first.ok_or_else(|| Error::NoComponent { dir: self.dir.clone() })?;
        out.note("built twice from nothing, the same bytes");
        Ok(both)
    }

    /// The component with the comments of `wit/`, where there is one.
    fn with_docs(&self, built: &Path, component: Vec<u8>, out: &Out) -> Result<Vec<u8>, CliError> {
        let own = self.dir.join("wit");
        if !own.is_dir() {
            out.note(&format!("{} is missing: the verbs stay without docs", own.display()));
            return Ok(component);
        }
        let gateway = tempfile::tempdir().map_err(CliError::file("make the folder", std::env::temp_dir()))?;
        let mut packages = vec![own];
        packages.extend(self.wit.iter().cloned());
        if !has_gateway(&packages) {
            gateway_wit::write(gateway.path())?;
            packages.push(gateway.path().to_owned());
        }
        let packed = pack(&component, &packages).map_err(|source| Error::Pack { path: built.to_owned(), source })?;
        Ok(packed)
    }
}

/// Whether one of the packages, or a folder of its `deps`, is the gateway's.
fn has_gateway(packages: &[PathBuf]) -> bool {
    let children = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_gateway = |dir: &Path| {
        children(dir)
            .filter(|path| path.extension().is_some_and(|ext| ext == "wit"))
            .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("package viworks:gateway@")))
    };
    packages.iter().any(|dir| is_gateway(dir) || children(&dir.join("deps")).any(|dep| is_gateway(&dep)))
}

fn told(path: &Path, statement: &Statement) -> String {
    let release = &statement.predicate;
    let asked = release.capabilities.names().join(", ");
    format!(
        "{} {}: {} bytes, sha256 {}\nasks for {}\n\n{}\nwrote {}; sign it with viworks-sign sign\n",
        release.plugin,
        release.version,
        release.artifact.size,
        statement.subject.first().map_or("", |subject| subject.digest.sha256.as_str()),
        if asked.is_empty() { "no capability" } else { &asked },
        inspect::verbs(release.verbs.iter().map(|(name, verb)| (name.as_str(), &verb.args, verb.docs.as_str()))),
        path.display(),
    )
}
