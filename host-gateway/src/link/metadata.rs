//! The repository's metadata over the link: which file is asked for and when it is late.
//! One update at a time, bounded; what it says goes to [`Repository`], which judges and
//! keeps it. Refuses nothing itself but silence.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Outgoing;
use crate::trust::{ATTEMPTS, PATIENCE, Repository, Standing, Update};

/// Between the beginnings of two updates: a backend that announces without end gains nothing.
const PAUSE: Duration = Duration::from_millis(500);

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing that anybody else has to know.
    Same,
    /// An update ended, and all is as it was.
    Ended,
    /// More is known now.
    Changed,
}

#[derive(Debug)]
pub(super) struct Metadata {
    repository: Repository,
    outgoing: Outgoing,
    update: Option<Update>,
    /// Announced while an update ran, or right after one began.
    next: Option<u64>,
    began: Option<Instant>,
    due: Option<Instant>,
    asked: u32,
    patience: Duration,
    told: Standing,
}

impl Metadata {
    pub(super) fn new(repository: Repository, outgoing: Outgoing) -> Self {
        Self {
            repository,
            outgoing,
            update: None,
            next: None,
            began: None,
            due: None,
            asked: 0,
            patience: PATIENCE,
            told: Standing::Off,
        }
    }

    /// Whether an answer is awaited: what is offered is judged by what it says.
    pub(super) fn is_asking(&self) -> bool {
        self.update.is_some()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The backend says that the repository's timestamp has this version.
    pub(super) async fn announced(&mut self, timestamp: u64) -> Progress {
        if !self.repository.is_on() {
            return Progress::Same;
        }
        if let Some(began) = self.began.filter(|began| self.update.is_some() || began.elapsed() < PAUSE) {
            self.next = Some(timestamp);
            if self.update.is_none() {
                self.due = Some(began + PAUSE);
            }
            return Progress::Same;
        }
        self.begin(timestamp).await
    }

    async fn begin(&mut self, timestamp: u64) -> Progress {
        (self.began, self.next, self.asked) = (Some(Instant::now()), None, 0);
        let repository = self.repository.clone();
        let begun = tokio::task::spawn_blocking(move || repository.update(timestamp, SystemTime::now())).await;
        match begun.ok().flatten() {
            Some(update) => self.ask(update).await,
            None => Progress::Ended,
        }
    }

    /// Ask for the next file, or go by the whole.
    async fn ask(&mut self, update: Update) -> Progress {
        if let Some(name) = update.wanted() {
            self.asked += 1;
            self.due = Some(Instant::now() + self.patience);
            self.outgoing.metadata(name.to_owned());
            self.update = Some(update);
            return Progress::Same;
        }
        let repository = self.repository.clone();
        let kept = tokio::task::spawn_blocking(move || repository.keep(&update)).await;
        let progress = match kept {
            Ok(Ok(true)) => Progress::Changed,
            Ok(Ok(false)) => Progress::Ended,
            Ok(Err(error)) => {
                self.repository.fault(error.code(), &error);
                Progress::Ended
            }
            Err(error) => {
                tracing::error!(%error, "keeping the repository's metadata ended early");
                Progress::Ended
            }
        };
        self.end(progress)
    }

    /// A file came, or there is none of that name.
    pub(super) async fn take(&mut self, name: String, text: Option<String>) -> Progress {
        let Some(mut update) = self.update.take() else { return Progress::Same };
        let taken = tokio::task::spawn_blocking(move || {
            let taken = update.take(&name, text.as_deref());
            (update, taken)
        });
        match taken.await {
            Ok((update, Ok(true))) => {
                self.asked = 0;
                self.ask(update).await
            }
            // What was asked for twice comes twice.
            Ok((update, Ok(false))) => {
                self.update = Some(update);
                Progress::Same
            }
            Ok((update, Err(error))) => {
                self.repository.refused(&update, &error);
                self.end(Progress::Ended)
            }
            Err(error) => {
                tracing::error!(%error, "reading the repository's metadata ended early");
                self.end(Progress::Ended)
            }
        }
    }

    /// What was due did not come, or the pause is over.
    pub(super) async fn late(&mut self) -> Progress {
        self.due = None;
        match (self.update.take(), self.next.take()) {
            (Some(update), next) => {
                self.next = next;
                if self.asked < ATTEMPTS {
                    return self.ask(update).await;
                }
                self.repository.refused(&update, &update.silence());
                self.end(Progress::Ended)
            }
            (None, Some(timestamp)) => self.begin(timestamp).await,
            (None, None) => Progress::Same,
        }
    }

    fn end(&mut self, progress: Progress) -> Progress {
        self.update = None;
        self.due = self.next.and(self.began).map(|began| began + PAUSE);
        self.look(SystemTime::now());
        progress
    }

    pub(super) fn disconnected(&mut self) {
        (self.update, self.next, self.due) = (None, None, None);
    }

    /// Say when the repository's age becomes another.
    pub(super) fn look(&mut self, now: SystemTime) {
        let standing = self.repository.view().standing(now);
        if standing == self.told {
            return;
        }
        let was = std::mem::replace(&mut self.told, standing);
        match standing {
            Standing::Off | Standing::Fresh => tracing::info!(target: "audit", ?standing, ?was, "repository"),
            _ => {
                tracing::warn!(target: "audit", ?standing, ?was, "repository");
                tracing::warn!(?standing, "the release repository's metadata is not current");
            }
        }
    }
}
