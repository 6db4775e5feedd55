//! The gateway's side of the broker's socket: a connection a request, so that it is always
//! known whether a request had been sent when something broke. Refuses to ask twice: what
//! was sent and not answered is lost, and the host has to be looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{
    self, Behalf, FrameError, Hello, MAX_PLANNED, MAX_REPLY, MAX_REQUEST, PROTOCOL, Refusal, Reply, Request,
};
use crate::capabilities::scripts;
use crate::effects::{Effect, Foreseen, Trace, Unapplied};
use crate::failure::{Failure, chain};

/// For looking at the host.
const LOOK: Duration = Duration::from_secs(60);
/// For changing it; a script has its own time.
const CHANGE: Duration = Duration::from_secs(300);
/// Beyond a script's own time.
const SLACK: Duration = Duration::from_secs(30);
/// A broker that is being started again is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const GREETING: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(50);

/// Asks the broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no broker listens at {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    #[error("the broker takes no requests of this user")]
    Stranger,
    #[error("the broker speaks version {theirs} of its protocol, this gateway {PROTOCOL}")]
    Version { theirs: u32 },
    #[error("the request can't be sent")]
    Send(#[source] FrameError),
    /// It was asked, and nobody knows what it did.
    #[error("the broker did not answer what it was asked")]
    Lost(#[source] Option<FrameError>),
    #[error("the broker refused: {0}")]
    Refused(Refusal),
    #[error("{0}")]
    Failed(Failure),
}

impl AskError {
    fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Refused(Refusal { rule: Some(rule), message, .. }) => {
                let field = rule.rsplit(' ').next().unwrap_or_default();
                let capability = field.split('.').next().unwrap_or_default().to_owned();
                Failure::Denied { capability, rule: format!("broker, {rule}"), message }
            }
            Self::Refused(refusal) if refusal.code == "busy" => Failure::Unavailable(refusal.to_string()),
            Self::Refused(refusal) => Failure::Failed(format!("the broker refused it ({refusal})")),
            other => Failure::Unavailable(chain(&other)),
        }
    }
}

impl Client {
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the broker says of itself.
    ///
    /// # Errors
    /// When there is none, or none for this user.
    pub async fn hello(&self) -> Result<Hello, AskError> {
        Ok(self.connect(Duration::ZERO).await?.1)
    }

    async fn connect(&self, patience: Duration) -> Result<(UnixStream, Hello), AskError> {
        let until = Instant::now() + patience;
        let failed = |e| AskError::Connect(self.socket.to_path_buf(), e);
        let mut stream = loop {
            match timeout(GREETING, UnixStream::connect(&self.socket)).await {
                Ok(Ok(stream)) => break stream,
                Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => return Err(AskError::Stranger),
                Ok(Err(_)) if Instant::now() < until => tokio::time::sleep(AGAIN).await,
                Ok(Err(e)) => return Err(failed(e)),
                Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
            }
        };
        let hello: Hello = match timeout(GREETING, wire::read(&mut stream, MAX_REPLY)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(FrameError::Ended)) => return Err(AskError::Stranger),
            Ok(Err(e)) => return Err(failed(io::Error::other(chain(&e)))),
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        if hello.protocol != PROTOCOL {
            return Err(AskError::Version { theirs: hello.protocol });
        }
        Ok((stream, hello))
    }

    async fn ask_within<T: DeserializeOwned>(&self, request: &Request, within: Duration) -> Result<T, AskError> {
        let until = Instant::now() + within;
        let (mut stream, _) = self.connect(PATIENCE).await?;
        match wire::write(&mut stream, request, MAX_REQUEST).await {
            Ok(()) => {}
            Err(e @ (FrameError::TooLarge { .. } | FrameError::Malformed(_))) => return Err(AskError::Send(e)),
            Err(e) => return Err(AskError::Lost(Some(e))),
        }
        match timeout_at(until, wire::read::<Reply>(&mut stream, MAX_REPLY)).await {
            Ok(Ok(Reply::Done(value))) => {
                serde_json::from_value(value).map_err(|e| AskError::Lost(Some(FrameError::Malformed(e))))
            }
            Ok(Ok(Reply::Failed(failure))) => Err(AskError::Failed(failure)),
            Ok(Ok(Reply::Refused(refusal))) => Err(AskError::Refused(refusal)),
            Ok(Err(e)) => Err(AskError::Lost(Some(e))),
            Err(_) => Err(AskError::Lost(None)),
        }
    }

    /// A read.
    ///
    /// # Errors
    /// The host's failure, `denied` by the broker's policy, or `unavailable`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.ask_within(&request, LOOK).await.map_err(AskError::failure)
    }

    pub(crate) async fn foresee(&self, effect: Effect, planned: &[Effect]) -> Result<Foreseen, Failure> {
        if planned.len() > MAX_PLANNED {
            return Err(Failure::Failed(format!("more than {MAX_PLANNED} planned effects")));
        }
        self.ask(Request::Foresee { effect: Box::new(effect), planned: of_the_host(planned) }).await
    }

    pub(crate) async fn trace(&self, effect: &Effect) -> Result<Trace, Failure> {
        self.ask(Request::Trace { effect: Box::new(effect.clone()) }).await
    }

    pub(crate) async fn apply(&self, effect: &Effect, behalf: Behalf) -> Result<Value, Unapplied> {
        let within = match effect {
            Effect::Scripts(scripts::Change::Run { timeout_ms, .. }) => {
                Duration::from_millis((*timeout_ms).into()) + SLACK
            }
            _ => CHANGE,
        };
        let request = Request::Apply { behalf, effect: Box::new(effect.clone()) };
        self.ask_within(&request, within).await.map_err(|error| match error {
            AskError::Lost(_) => Unapplied::Lost(chain(&error)),
            other => Unapplied::Failed(other.failure()),
        })
    }
}

/// What plugins keep is the gateway's own, and no business of the broker's.
pub(crate) fn of_the_host(planned: &[Effect]) -> Vec<Effect> {
    planned.iter().filter(|effect| !matches!(effect, Effect::State(_))).cloned().collect()
}
