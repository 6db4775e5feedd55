//! `viworks plugin build`: cargo, then docs from the WIT into the component, then the
//! check that signing will make too. Refuses to write what could not be released.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use viworks_signing::manifest::Manifest;
use viworks_signing::pack::pack;
use viworks_signing::publish::build_release;
use viworks_signing::release::Statement;

use super::{Error, gateway_wit, inspect};
use crate::error::Error as CliError;
use crate::output::Out;

const TARGET: &str = "wasm32-wasip2";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder holds plugin.toml, wit/ and a crate. Plugins in other languages are built by
their own tools and given with --component.

Examples:
  viworks plugin build plugins/accounts --out dist
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
    /// A WIT package that wit/ uses, other than the gateway's.
    #[arg(long, value_name = "DIR")]
    wit: Vec<PathBuf>,
}

impl Build {
    pub(super) fn run(self, out: &Out) -> Result<(), CliError> {
        let manifest_path = self.dir.join("plugin.toml");
        let text = fs::read_to_string(&manifest_path).map_err(CliError::file("read it", &manifest_path))?;
        let manifest = Manifest::parse(&text).map_err(|source| Error::Manifest { path: manifest_path, source })?;

        let built = match &self.component {
            Some(path) => path.clone(),
            None => cargo(&self.dir)?,
        };
        let component = fs::read(&built).map_err(CliError::file("read it", &built))?;
        let component = self.with_docs(&built, component, out)?;
        let statement = build_release(&component, &manifest)
            .map_err(|source| Error::Release { path: built, source: Box::new(source) })?;

        fs::create_dir_all(&self.out).map_err(CliError::file("make the folder", &self.out))?;
        let path = self.out.join(format!("{}.wasm", manifest.id));
        fs::write(&path, &component).map_err(CliError::file("write it", &path))?;
        out.show(&serde_json::to_value(&statement).unwrap_or_default(), |_| told(&path, &statement))
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

/// Build the crate in `dir`; the component's path, as cargo reports it.
fn cargo(dir: &Path) -> Result<PathBuf, CliError> {
    let manifest = dir.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(CliError::file("find it", &manifest))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        // Here and not by --manifest-path, so that the folder's .cargo/config.toml counts.
        .current_dir(dir)
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .args(reproducible())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::Cargo)?;
    let mut found = None;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let message: Value = serde_json::from_str(&line.map_err(Error::Cargo)?).unwrap_or_default();
        if message["reason"] == "compiler-artifact"
            && message["manifest_path"].as_str().map(Path::new) == Some(&manifest)
        {
            let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found = files.into_iter().find(|file| file.ends_with(".wasm")).map(PathBuf::from).or(found);
        }
    }
    if !child.wait().map_err(Error::Cargo)?.success() {
        return Err(Error::Build.into());
    }
    Ok(found.ok_or_else(|| Error::NoComponent { dir: dir.to_owned() })?)
}

/// Panic messages hold the paths of dependencies; those of this machine say nothing to
/// anybody and would make its bytes differ from every other's.
fn reproducible() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let Some(home) = home.as_deref().and_then(Path::to_str) else { return Vec::new() };
    let flag = Value::from(format!("--remap-path-prefix={home}=/cargo"));
    vec!["--config".to_owned(), format!("target.{TARGET}.rustflags=[{flag}]")]
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
