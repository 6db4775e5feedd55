//! The `scripts` capability: named files under the scripts root, for sites that migrate from
//! scripts. Runs a file only if the host owner's policy pins its digest, and then exactly
//! the bytes that were hashed. Refuses shells, paths, and files that others can write.
//!
//! A script starts in `/` with `PATH`, `LANG` and `VIW_INVOCATION`, and no input. Its `$0` is
//! where the sealed copy is, not where the file was: it can't look for others beside it.

mod given;
mod judge;
mod pinned;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use viworks_protocol::outcome::DiffLine;
use viworks_signing::grant::{Grant, Granted, ScriptsScope};

use super::wit::viworks::gateway::{scripts as wit, types};
use super::{Call, secrets};
use crate::broker::wire::Request;
use crate::effects::diff::appears;
use crate::effects::{Effect, Foreseen};
use crate::failure::Failure;
use crate::host::Reach;
use crate::process::{ProcessError, Program};
use given::{Given, given, said};
use pinned::{PinError, Pinned};

const MAX_ARGS: usize = 64;
const MAX_ARG_BYTES: usize = 4_096;

/// `[providers.scripts]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gateway's `scripts_root`.
    pub root: Option<PathBuf>,
    /// Seconds that a script may run; the invocation's deadline if that is sooner.
    pub timeout_secs: u32,
    /// KiB kept of stdout, and of stderr.
    pub output_kib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { root: None, timeout_secs: 300, output_kib: 64 }
    }
}

#[derive(Debug)]
pub struct Provider {
    config: Config,
    reach: Reach,
}

/// What can change: anything. A script is an effect that nothing takes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Run {
        name: String,
        /// Lowercase hex, as the policy pins it.
        sha256: String,
        args: Vec<String>,
        /// Variables, and the names of the secrets that they will hold.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<(String, String)>,
        /// What the script finds in `VIW_INVOCATION`.
        invocation: String,
        timeout_ms: u32,
    },
}

/// How a script ended: the serialisable face of the WIT record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Output {
    exit_code: i32,
    stdout: String,
    stderr: String,
    truncated: bool,
    duration_ms: u32,
}

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run { .. } => "scripts.run",
        }
    }

    #[must_use]
    pub fn summary(&self) -> String {
        let Self::Run { name, args, .. } = self;
        format!("run script {name} with {} arguments", args.len())
    }

    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        let Self::Run { name, sha256, args, secrets, .. } = self;
        let mut lines = vec![appears("script", name), appears("sha256", sha256)];
        lines.extend(args.iter().map(|arg| appears("argument", arg)));
        lines.extend(secrets.iter().map(|(variable, name)| appears(variable, format!("secret {name}"))));
        lines
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &Config, reach: Reach) -> Self {
        Self { config: config.clone(), reach }
    }

    /// Whether the script is there, and is the pinned one.
    pub(crate) async fn there(&self, name: &str, sha256: &str) -> Result<(), Failure> {
        match self.reach.broker() {
            Some(broker) => broker.ask(Request::Script { name: name.to_owned(), sha256: sha256.to_owned() }).await,
            None => self.pinned(name, sha256).await.map(drop),
        }
    }

    /// What a script would do, only running it can tell: a plan lists it as irreversible and
    /// answers the verb `unavailable`, since whatever else it answered would be made up.
    pub(crate) async fn foresee(&self, change: Change) -> Result<Foreseen, Failure> {
        let Change::Run { name, sha256, .. } = &change;
        drop(self.pinned(name, sha256).await?);
        let answer = Err(Failure::Unavailable(format!(
            "script {name} was not run: this is a plan, and only running it could tell what it answers"
        )));
        Ok(Foreseen { effect: Effect::Scripts(change), answer })
    }

    pub(crate) async fn apply(&self, change: &Change, secrets: &secrets::Provider) -> Result<Value, Failure> {
        let Change::Run { name, sha256, args, secrets: variables, invocation, timeout_ms } = change;
        let pinned = self.pinned(name, sha256).await?;
        let given = given(secrets, variables).await?;
        let deadline = Duration::from_millis((*timeout_ms).into());
        let mut program = Program::new(pinned.path())
            .args(args)
            .env("VIW_INVOCATION", invocation)
            .deadline(deadline.min(Duration::from_secs(self.config.timeout_secs.into())))
            .output_cap(self.config.output_kib as usize * 1024);
        for Given { variable, secret, .. } in &given {
            program = program.env(variable, OsStr::from_bytes(secret.reveal()));
        }
        let ran = program.run().await.map_err(|e| match e {
            ProcessError::TimedOut { after, .. } => {
                Failure::Failed(format!("script {name} and all it started were killed after {} ms", after.as_millis()))
            }
            ProcessError::Start { source, .. } => {
                Failure::Failed(format!("script {name} could not be started: {source}"))
            }
            other => Failure::Failed(format!("script {name}: {other}")),
        });
        // What runs is read through this descriptor, so it stays open until the end.
        drop(pinned);
        let ran = ran?;
        let output = Output {
            exit_code: ran.code(),
            stdout: said(&ran.stdout, &given),
            stderr: said(&ran.stderr, &given),
            truncated: ran.truncated,
            duration_ms: u32::try_from(ran.took.as_millis()).unwrap_or(u32::MAX),
        };
        serde_json::to_value(output).map_err(|e| Failure::Failed(e.to_string()))
    }

    /// The file's bytes, if they are the pinned ones.
    async fn pinned(&self, name: &str, sha256: &str) -> Result<Pinned, Failure> {
        let root =
            self.config.root.clone().ok_or_else(|| Failure::Unavailable("no scripts root is configured".into()))?;
        let (name, sha256) = (name.to_owned(), sha256.to_owned());
        tokio::task::spawn_blocking(move || Pinned::open(&root, &name, &sha256))
            .await
            .map_err(|e| Failure::Failed(format!("reading a script ended early: {e}")))?
            .map_err(|error| match error {
                PinError::Missing(_) => Failure::NotFound(error.to_string()),
                PinError::OtherBytes(_) => Failure::Denied {
                    capability: "scripts".into(),
                    rule: "policy: scripts.pins".into(),
                    message: error.to_string(),
                },
                PinError::System { .. } => Failure::Unavailable(error.to_string()),
                _ => Failure::Conflict(error.to_string()),
            })
    }
}

impl wit::Host for Call {
    async fn list(&mut self) -> wasmtime::Result<Result<Vec<wit::Script>, types::Failure>> {
        self.enter()?;
        Ok(self.scripts_list().map_err(Into::into))
    }

    async fn run(&mut self, name: String, args: Vec<String>) -> wasmtime::Result<Result<wit::Output, types::Failure>> {
        self.enter()?;
        Ok(self.scripts_run(name, args, &[]).await.map(Into::into).map_err(Into::into))
    }

    async fn run_with_secrets(
        &mut self,
        name: String,
        args: Vec<String>,
        secrets: Vec<wit::SecretVariable>,
    ) -> wasmtime::Result<Result<wit::Output, types::Failure>> {
        self.enter()?;
        Ok(self.scripts_run(name, args, &secrets).await.map(Into::into).map_err(Into::into))
    }
}

impl Call {
    fn scripts_list(&mut self) -> Result<Vec<wit::Script>, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        let named = |name: &str| scope.scopes().all(|s| s.names.match_any(name));
        let pins = policy(scope).map(|p| p.pins.iter()).into_iter().flatten();
        Ok(pins
            .filter(|(name, _)| named(name))
            .map(|(name, sha256)| wit::Script { name: name.clone(), sha256: sha256.clone() })
            .collect())
    }

    async fn scripts_run(
        &mut self,
        name: String,
        args: Vec<String>,
        secrets: &[wit::SecretVariable],
    ) -> Result<Output, Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        check_name(&name)?;
        check_args(&args)?;
        self.require(scope, "scripts.names", || format!("script {name}"), |s| s.names.match_any(&name))?;
        let owner = policy(scope);
        let pin = owner.and_then(|p| p.pins.get(&name)).cloned();
        // A release may ask for names; which bytes may run is the policy's word alone.
        let pinned = |s: &ScriptsScope| pin.is_some() || !owner.is_some_and(|p| std::ptr::eq(p, s));
        self.require(scope, "scripts.pins", || format!("script {name} is not pinned"), pinned)?;
        let sha256 = pin.unwrap_or_default();

        // Asked before the effect, so that a file that was changed is a refusal, counted
        // and audited; the effect asks again and runs the very bytes that it hashed.
        match self.host.scripts.there(&name, &sha256).await {
            Err(Failure::Denied { message, .. }) => {
                self.require(scope, "scripts.pins", || message, |s| !owner.is_some_and(|p| std::ptr::eq(p, s)))?;
            }
            checked => checked?,
        }
        let secrets = secrets::variables(self, secrets)?;
        let left = self.facts.deadline.saturating_duration_since(Instant::now());
        let run = Change::Run {
            name,
            sha256,
            args,
            secrets,
            invocation: self.facts.invocation.clone(),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        self.perform(Effect::Scripts(run)).await
    }
}

fn granted(grant: &Grant) -> Result<&Granted<ScriptsScope>, Failure> {
    grant.scripts.as_ref().ok_or_else(|| Failure::Denied {
        capability: "scripts".into(),
        rule: "grant: scripts".into(),
        message: "scripts is not granted".into(),
    })
}

/// The host owner's layer: the last.
fn policy(scope: &Granted<ScriptsScope>) -> Option<&ScriptsScope> {
    scope.scopes().last()
}

/// One plain file name: no path, nothing hidden.
fn check_name(name: &str) -> Result<(), Failure> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good =
        name.len() <= 128 && name.bytes().all(inner) && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if good {
        return Ok(());
    }
    Err(Failure::InvalidArgument("a script's name is at most 128 letters, digits, '.', '_' and '-', no path".into()))
}

fn check_args(args: &[String]) -> Result<(), Failure> {
    if args.len() > MAX_ARGS || args.iter().any(|a| a.len() > MAX_ARG_BYTES || a.contains('\0')) {
        return Err(Failure::InvalidArgument(format!(
            "more than {MAX_ARGS} arguments, or one longer than {MAX_ARG_BYTES} bytes or with a NUL"
        )));
    }
    Ok(())
}

impl From<Output> for wit::Output {
    fn from(output: Output) -> Self {
        let Output { exit_code, stdout, stderr, truncated, duration_ms } = output;
        Self { exit_code, stdout, stderr, truncated, duration_ms }
    }
}
