//! `repo check`: what a client that trusts a root makes of a repository. Writes nothing but
//! the state that it is given.

use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;
use viworks_signing::tuf::{Client, Place, State, Step, Trusted, TufError, place};

use super::super::{Error, Exit, Output, files, output};
use super::Fault;

const MAX_STATE: usize = 32 * 1024 * 1024;
const MAX_FILE: usize = 1024 * 1024;

/// Read a repository as a gateway does, and say what it makes of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 if it is current, 4 if something has expired, 1 if it is refused otherwise.

Examples:
  viworks-sign repo check /srv/releases --root root.json
  viworks-sign repo check /srv/releases --root root.json --state known.json   # remembers versions")]
pub(super) struct Check {
    /// The repository's folder
    dir: PathBuf,
    /// The root that is trusted
    #[arg(long, value_name = "ROOT")]
    root: PathBuf,
    /// What was known before; made, and renewed with what was verified
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// As of this RFC 3339 time in UTC, instead of now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Check {
    pub fn run(&self) -> Result<Exit, Error> {
        let now = match &self.at {
            Some(time) => humantime::parse_rfc3339(time).map_err(|_| Error::Time { time: time.clone() })?,
            None => SystemTime::now(),
        };
        let root = files::read(&self.root, files::MAX_TEXT)?;
        let state = match &self.state {
            Some(path) if path.exists() => State::decode(&files::read(path, MAX_STATE)?).map_err(Fault::from)?,
            _ => State::default(),
        };
        let (taken, state) = self.update(&root, state, now)?;
        if let (Some(path), Some(state)) = (&self.state, state) {
            files::replace(path, &state.encode().map_err(Fault::from)?)?;
        }
        self.tell(&taken)
    }

    /// What came of it, and what is kept of it either way.
    fn update(
        &self,
        root: &[u8],
        state: State,
        now: SystemTime,
    ) -> Result<(Result<Trusted, TufError>, Option<State>), Error> {
        let mut client = match Client::new(root, state, now) {
            Ok(client) => client,
            Err(error) => return Ok((Err(error), None)),
        };
        while let Step::Fetch { name, .. } = client.next() {
            let bytes = self.file(&name)?;
            if let Err(error) = client.supply(bytes.as_deref()) {
                return Ok((Err(error), Some(client.state().clone())));
            }
        }
        let trusted = client.trusted().cloned().ok_or(TufError::Order);
        Ok((trusted, Some(client.state().clone())))
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let folder = match place(name) {
            Some(Place::Metadata) => "metadata",
            Some(Place::Targets) => "targets",
            None => return Ok(None),
        };
        let path = self.dir.join(folder).join(name);
        match path.exists() {
            // One byte more than a client takes is enough for its refusal.
            true => match files::read(&path, MAX_FILE) {
                Err(Error::TooLarge { .. }) => Ok(Some(vec![b' '; MAX_FILE + 1])),
                read => read.map(Some),
            },
            false => Ok(None),
        }
    }

    fn tell(&self, taken: &Result<Trusted, TufError>) -> Result<Exit, Error> {
        let exit = match taken {
            Ok(_) => Exit::Done,
            Err(TufError::Expired { .. }) => Exit::Stale,
            Err(_) => Exit::Refused,
        };
        let code = taken.as_ref().map_or_else(TufError::code, |_| "OK");
        let reason = taken.as_ref().err().map(|error| output::chain(error));
        match (self.output, taken) {
            (Output::Json, _) => output::json(&json!({
                "result": if exit == Exit::Done { "current" } else { "refused" },
                "code": code,
                "reason": reason,
                "timestamp": taken.as_ref().ok().map(|trusted| trusted.versions().timestamp),
                "targets": taken.as_ref().map(|t| t.targets().keys().cloned().collect::<Vec<_>>()).unwrap_or_default(),
            }))?,
            (Output::Text, Ok(trusted)) => {
                let versions = trusted.versions();
                let mut lines = vec![format!("CURRENT  root {}, timestamp {}", versions.root, versions.timestamp)];
                lines.extend(trusted.targets().keys().map(|name| format!("target   {name}")));
                output::lines(lines)?;
            }
            (Output::Text, Err(_)) => output::lines([format!("REFUSED  {code}: {}", reason.unwrap_or_default())])?,
        }
        Ok(exit)
    }
}
