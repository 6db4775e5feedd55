//! `viworks plugins publish`: a signed bundle, a bundle in a registry, or a whole release
//! repository on its way to the backend. What is sent is judged there, and again on every
//! gateway.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};

const HEAD: &str = "viworks-repository 1\n";

/// Publish a signed bundle: FILE.wasm, with FILE.wasm.intoto.jsonl beside it; or one in a
/// registry; or what is new in a release repository.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  viworks plugins publish dist/accounts.wasm
  viworks plugins publish oci://registry.example.com/plugins/accounts:1.4.2
  viworks plugins publish --repository /srv/releases
  viworks plugins publish --repository releases.viw")]
pub struct Args {
    /// The component, as `viworks-sign sign` wrote it, or oci://HOST/NAME:TAG
    #[arg(required_unless_present = "repository")]
    what: Option<String>,
    /// The signed statements, where they are not beside it.
    #[arg(long, value_name = "FILE")]
    statements: Option<PathBuf>,
    /// Keep it for a rollout instead of offering it to every gateway at once.
    #[arg(long)]
    stage: bool,
    /// A release repository: its folder, or the file of `viworks-sign repo export`.
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["what", "statements", "stage"])]
    repository: Option<PathBuf>,
}

impl Args {
    /// # Errors
    /// The backend's refusal, or a file that can't be read.
    pub fn run(self, client: &Client, out: &Out) -> Result<Exit, Error> {
        if let Some(path) = &self.repository {
            let container = if path.is_dir() {
                pack(path)?
            } else {
                std::fs::read(path).map_err(Error::file("read the repository", path))?
            };
            out.show(&client.post_bytes("/repository", container)?, updated)?;
            return Ok(Exit::Succeeded);
        }
        let what = self.what.unwrap_or_default();
        let body = if what.starts_with("oci://") {
            json!({ "oci": what, "activate": !self.stage })
        } else {
            let file = PathBuf::from(what);
            let statements = self.statements.unwrap_or_else(|| beside(&file));
            let component = std::fs::read(&file).map_err(Error::file("read the component", &file))?;
            let text = std::fs::read_to_string(&statements).map_err(Error::file("read the statements", &statements))?;
            json!({ "component": STANDARD.encode(component), "statements": text, "activate": !self.stage })
        };
        out.show(&client.post("/plugins", &body)?, published)?;
        Ok(Exit::Succeeded)
    }
}

/// `FILE.wasm.intoto.jsonl`
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".intoto.jsonl");
    name.into()
}

fn published(plugin: &Value) -> String {
    let (name, version) = (cell(&plugin["plugin"]), cell(&plugin["version"]));
    match plugin["state"].as_str() {
        Some("held") => format!(
            "{name} {version} asks for more than the active release and is held\n  see: viworks plugins diff {name} \
             {version}\n  then: viworks plugins approve {name} {version}\n"
        ),
        Some("staged") => format!("{name} {version} is staged; viworks plugins rollout {name} --to {version}\n"),
        _ => format!("{name} {version} is published\n"),
    }
}

fn updated(answer: &Value) -> String {
    let mut text = repository(&answer["repository"]);
    for plugin in answer["published"].as_array().into_iter().flatten() {
        text.push_str(&published(plugin));
    }
    for digest in answer["killed"].as_array().into_iter().flatten() {
        text.push_str(&format!("{} was taken back and is killed\n", cell(digest)));
    }
    for refused in answer["refused"].as_array().into_iter().flatten() {
        let fault = &refused["fault"];
        text.push_str(&format!(
            "{} is refused: {} ({})\n",
            cell(&refused["target"]),
            cell(&fault["detail"]),
            cell(&fault["code"])
        ));
    }
    text
}

/// The repository's own state as a table.
pub(super) fn repository(repository: &Value) -> String {
    let mut table = Table::new(["REPOSITORY", ""]);
    let versions = &repository["versions"];
    for name in ["root", "timestamp", "snapshot"] {
        table.row([name.to_owned(), cell(&versions[name])]);
    }
    for (role, version) in versions["roles"].as_object().into_iter().flatten() {
        table.row([role.clone(), cell(version)]);
    }
    table.row(["targets".to_owned(), cell(&repository["targets"])]);
    let expires = &repository["expires"];
    table.row(["expires".to_owned(), format!("{} ({})", moment(&expires["at"]), cell(&expires["role"]))]);
    if let Some(fault) = repository["fault"].as_object() {
        table.row(["last update refused".to_owned(), format!("{} ({})", cell(&fault["detail"]), cell(&fault["code"]))]);
    }
    table.to_string()
}

/// A repository's folder as the one file that is uploaded: every file of `metadata/` and
/// `targets/`.
fn pack(dir: &Path) -> Result<Vec<u8>, Error> {
    let mut out = HEAD.as_bytes().to_vec();
    for folder in ["metadata", "targets"] {
        let path = dir.join(folder);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&path)
            .map_err(Error::file("read the repository", &path))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file() && path.file_name().is_some_and(|name| is_plain(&name.to_string_lossy())))
            .collect();
        files.sort();
        for file in files {
            let bytes = std::fs::read(&file).map_err(Error::file("read the repository", &file))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            out.extend_from_slice(format!("{folder}/{name} {}\n", bytes.len()).as_bytes());
            out.extend_from_slice(&bytes);
        }
    }
    out.extend_from_slice(b"end\n");
    Ok(out)
}

/// A name that a client of a repository asks for: no drafts, no locks.
fn is_plain(name: &str) -> bool {
    use viworks_signing::tuf::{is_target, place};
    place(name).is_some() || is_target(name)
}
