//! What is asked of the engine, each with a deadline and a bound. `force` is asked for only
//! where a container that runs is to be removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use futures_util::stream::{self, StreamExt};

use super::super::wit::viworks::gateway::containers as wit;
use super::container::Container;
use super::transport;
use crate::failure::Failure;

/// A host with more than these has a problem that a list does not solve.
const MAX_CONTAINERS: usize = 2_000;
/// Containers that are inspected at once.
const INSPECTED_AT_ONCE: usize = 8;
/// Inspecting all of a list together may take this many deadlines.
const LIST_DEADLINES: u32 = 4;

#[derive(Debug)]
pub(super) struct Engine {
    socket: Option<PathBuf>,
    deadline: Duration,
}

impl Engine {
    pub(super) fn new(socket: Option<&Path>, deadline: Duration) -> Self {
        Self { socket: socket.map(Path::to_owned), deadline }
    }

    fn client(&self) -> Result<Docker, Failure> {
        let none = "no container engine is configured here: set container_engine to its unix socket";
        let socket = self.socket.as_ref().ok_or_else(|| Failure::Unavailable(none.into()))?;
        transport::client(socket).map_err(|e| self.failure("be used", e))
    }

    /// One request: `deadline` for all of it, the answer's body included.
    async fn ask<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, request).await {
            Ok(answer) => answer.map_err(|e| self.failure(what, e)),
            Err(_) => Err(Failure::Unavailable(format!(
                "the container engine at {} did not {what} within {} s",
                self.place(),
                deadline.as_secs()
            ))),
        }
    }

    fn failure(&self, what: &str, error: Error) -> Failure {
        let place = self.place();
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let said: String = message.chars().filter(|c| !c.is_control()).take(300).collect();
                match status_code {
                    404 => Failure::NotFound(said),
                    409 => Failure::Conflict(said),
                    _ => Failure::Failed(format!("the container engine can't {what}: {status_code} {said}")),
                }
            }
            Error::IOError { err } => Failure::Unavailable(format!(
                "no container engine answers at {place} ({err}): start it, or set container_engine to its socket"
            )),
            other => {
                let said: String = crate::failure::chain(&other).chars().take(300).collect();
                Failure::Failed(format!("the container engine at {place} can't {what}: {said}"))
            }
        }
    }

    fn place(&self) -> String {
        self.socket.as_ref().map(|s| s.display().to_string()).unwrap_or_default()
    }

    pub(super) async fn version(&self) -> Result<wit::Engine, Failure> {
        let client = self.client()?;
        let version = self.ask("say its version", self.deadline, client.version()).await?;
        let component = version.components.unwrap_or_default().into_iter().next().map(|c| c.name);
        let name = match component.as_deref() {
            None | Some("" | "Engine") => "Docker Engine".to_owned(),
            Some(other) => other.chars().take(64).collect(),
        };
        Ok(wit::Engine {
            name,
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
        })
    }

    /// Every container that `wanted` may be true of, inspected, by name.
    pub(super) async fn list(&self, wanted: impl Fn(&ContainerSummary) -> bool) -> Result<Vec<Container>, Failure> {
        let client = self.client()?;
        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let found = self.ask("list containers", self.deadline, client.list_containers(Some(options))).await?;
        if found.len() > MAX_CONTAINERS {
            return Err(Failure::Failed(format!("the container engine has more than {MAX_CONTAINERS} containers")));
        }
        let ids: Vec<String> = found.into_iter().filter(wanted).filter_map(|c| c.id).collect();
        let all = async {
            let mut inspected = stream::iter(ids)
                .map(|id: String| async move { self.inspect(&id).await })
                .buffer_unordered(INSPECTED_AT_ONCE);
            let mut containers = Vec::new();
            while let Some(container) = inspected.next().await {
                match container {
                    Ok(container) => containers.push(container),
                    // Gone since it was listed.
                    Err(Failure::NotFound(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
            containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
            Ok(containers)
        };
        let late = || Failure::Unavailable(format!("the container engine at {} is too slow", self.place()));
        tokio::time::timeout(self.deadline * LIST_DEADLINES, all).await.map_err(|_| late())?
    }

    /// # Errors
    /// `not-found`, and whatever the engine lacks.
    pub(super) async fn inspect(&self, id: &str) -> Result<Container, Failure> {
        check(id)?;
        let client = self.client()?;
        let request = client.inspect_container(id, None::<InspectContainerOptions>);
        let answer = self.ask("inspect a container", self.deadline, request).await?;
        Container::of(answer)
            .ok_or_else(|| Failure::Failed("the container engine's answer lacks what it must say".into()))
    }

    pub(super) async fn stop(&self, id: &str, grace: u16) -> Result<(), Failure> {
        check(id)?;
        let client = self.client()?;
        let options = StopContainerOptions { t: Some(grace.into()), signal: None };
        let deadline = self.deadline + Duration::from_secs(grace.into());
        self.ask("stop a container", deadline, client.stop_container(id, Some(options))).await
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Failure> {
        check(id)?;
        let client = self.client()?;
        self.ask("start a container", self.deadline, client.start_container(id, None::<StartContainerOptions>)).await
    }

    /// Without `kill` the engine itself refuses to remove one that runs.
    pub(super) async fn remove(&self, id: &str, kill: bool) -> Result<(), Failure> {
        check(id)?;
        let client = self.client()?;
        let options = RemoveContainerOptions { force: kill, v: false, link: false };
        self.ask("remove a container", self.deadline * 3, client.remove_container(id, Some(options))).await
    }
}

/// An id or a name, which becomes a part of a path: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn check(id: &str) -> Result<(), Failure> {
    let good = id.len() <= 128
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(Failure::InvalidArgument("that is neither a container's id nor its name".into())) }
}
