//! `repo export` and `repo import`: the current version as one file, for where no network
//! goes. Refuses on import what a client that knows the old copy would refuse.
//!
//! The file: the line `viworks-repository 1`, then for each file a line `PATH LENGTH` and its
//! bytes, then the line `end`.

use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::tuf::repo::Written;
use viworks_signing::tuf::{Client, Place, State, Step, Trusted, TufError, is_target, place};

use super::super::{Error, Exit, files, output};
use super::Fault;
use super::dir::Dir;

const HEAD: &[u8] = b"viworks-repository 1\n";
const END: &[u8] = b"end\n";
const MAX_CONTAINER: usize = 1024 * 1024 * 1024;
const MAX_LINE: usize = 256;
const FIRST_ROOT: &str = "1.root.json";

/// Write the current version into one file.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  viworks-sign repo export releases --out /media/stick/releases.viw")]
pub(super) struct Export {
    /// The repository's folder
    dir: PathBuf,
    /// The file; replaced if it is there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Take the version of an exported file into a folder, if a client would.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  viworks-sign repo import /srv/releases --from /media/stick/releases.viw --root root.json
A folder that has a repository is its own measure: versions don't go back, and --root may be left out.")]
pub(super) struct Import {
    /// The folder; made if it is not there
    dir: PathBuf,
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The root that is trusted, got by another way than this file
    #[arg(long, value_name = "ROOT")]
    root: Option<PathBuf>,
}

type Files = BTreeMap<String, Vec<u8>>;

impl Export {
    pub fn run(&self) -> Result<Exit, Error> {
        let dir = Dir::lock(&self.dir)?;
        let metadata = dir.metadata("metadata")?;
        let taken = update(&metadata, |name| dir.target(name), None, State::default(), SystemTime::now());
        let (trusted, _, names) = taken.map_err(Fault::from)?;
        let mut all = Files::new();
        let missing = |name: &str| Fault::from(TufError::Missing { name: name.to_owned() });
        for name in names.iter().map(String::as_str).chain([FIRST_ROOT]) {
            let (path, bytes) = match place(name) {
                Some(Place::Targets) => (format!("targets/{name}"), dir.target(name)),
                _ => (format!("metadata/{name}"), metadata.get(name).cloned()),
            };
            all.insert(path, bytes.ok_or_else(|| missing(name))?);
        }
        for (name, target) in trusted.targets() {
            let file = format!("{}.{name}", target.sha256);
            let bytes = dir.target(&file).ok_or_else(|| missing(&file))?;
            trusted.check(name, &bytes).map_err(Fault::from)?;
            all.insert(format!("targets/{file}"), bytes);
        }
        let mut out = HEAD.to_vec();
        for (path, bytes) in &all {
            out.extend_from_slice(format!("{path} {}\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
        }
        out.extend_from_slice(END);
        files::replace(&self.out, &out)?;
        output::lines([format!(
            "exported {} files, timestamp {}, to {}",
            all.len(),
            trusted.versions().timestamp,
            self.out.display()
        )])?;
        Ok(Exit::Done)
    }
}

impl Import {
    pub fn run(&self) -> Result<Exit, Error> {
        let now = SystemTime::now();
        let bytes = files::read(&self.from, MAX_CONTAINER)?;
        let (metadata, targets) = read(&bytes).map_err(|what| Fault::Container { path: self.from.clone(), what })?;
        let dir = Dir::lock(&self.dir)?;
        let here = dir.metadata("metadata")?;
        let root = match &self.root {
            Some(path) => Some(files::read(path, files::MAX_TEXT)?),
            None if here.contains_key(FIRST_ROOT) => here.get(FIRST_ROOT).cloned(),
            None => return Err(Fault::None { path: self.dir.clone() }.into()),
        };
        // What is here may have expired; it is the measure all the same.
        let known = match here.contains_key("timestamp.json") {
            true => {
                let long_ago = SystemTime::UNIX_EPOCH;
                let taken = update(&here, |name| dir.target(name), root.as_deref(), State::default(), long_ago);
                taken.map_err(Fault::from)?.1.forget_time()
            }
            false => State::default(),
        };
        let find = |name: &str| targets.get(name).cloned();
        let (trusted, _, _) = update(&metadata, find, root.as_deref(), known, now).map_err(Fault::from)?;
        for (name, target) in trusted.targets() {
            let file = format!("{}.{name}", target.sha256);
            let bytes = targets.get(&file).ok_or_else(|| Fault::from(TufError::Missing { name: file.clone() }))?;
            trusted.check(name, bytes).map_err(Fault::from)?;
        }
        let versions = trusted.versions().clone();
        let mut written = Written { targets, metadata, ..Written::default() };
        written.timestamp = written.metadata.remove("timestamp.json");
        dir.write(written)?;
        output::lines([format!(
            "imported timestamp {}, root {}, into {}",
            versions.timestamp,
            versions.root,
            dir.path().display()
        )])?;
        Ok(Exit::Done)
    }
}

/// What a client makes of `metadata`, and the names that it asked for and got. `root`: the
/// first one, if no other is trusted.
pub(super) fn update(
    metadata: &Files,
    target: impl Fn(&str) -> Option<Vec<u8>>,
    root: Option<&[u8]>,
    state: State,
    now: SystemTime,
) -> Result<(Trusted, State, Vec<String>), TufError> {
    let missing = |name: &str| TufError::Missing { name: name.to_owned() };
    let first = metadata.get(FIRST_ROOT).map(Vec::as_slice);
    let root = root.or(first).ok_or_else(|| missing(FIRST_ROOT))?;
    let mut client = Client::new(root, state, now)?;
    let mut names = Vec::new();
    while let Step::Fetch { name, .. } = client.next() {
        let bytes = match place(&name) {
            Some(Place::Targets) => target(&name),
            _ => metadata.get(&name).cloned(),
        };
        client.supply(bytes.as_deref())?;
        if bytes.is_some() {
            names.push(name);
        }
    }
    let trusted = client.trusted().cloned().ok_or(TufError::Order)?;
    Ok((trusted, client.state().clone(), names))
}

/// Metadata and targets of a container.
fn read(bytes: &[u8]) -> Result<(Files, Files), &'static str> {
    let mut rest = bytes.strip_prefix(HEAD).ok_or("it begins otherwise")?;
    let (mut metadata, mut targets) = (Files::new(), Files::new());
    while rest != END {
        let line = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n').ok_or("a line is too long")?;
        let text = std::str::from_utf8(&rest[..line]).map_err(|_| "a name is not UTF-8")?;
        let (path, length) = text.split_once(' ').ok_or("a line has no length")?;
        let length: usize = length.parse().map_err(|_| "a length is no number")?;
        rest = &rest[line + 1..];
        let (content, after) = rest.split_at_checked(length).ok_or("it ends too early")?;
        let path = Path::new(path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (files, fits) = match path.parent().and_then(Path::to_str) {
            Some("metadata") => (&mut metadata, place(&name) == Some(Place::Metadata)),
            Some("targets") => (&mut targets, is_target(&name)),
            _ => return Err("a file is in no folder of a repository"),
        };
        if !fits || files.insert(name, content.to_vec()).is_some() {
            return Err("a name is none of a repository's, or there twice");
        }
        rest = after;
    }
    Ok((metadata, targets))
}
