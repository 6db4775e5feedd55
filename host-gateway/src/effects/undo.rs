//! Undo of a finished command: the inverses of what it did here, the last first. Refuses
//! to begin where the host has changed since: every inverse is foreseen before the first
//! one happens.

use super::{Effect, Inverse, Recorder};
use crate::failure::Failure;
use crate::host::Host;

/// What is to be taken back, in order, and what nothing can take back.
#[derive(Debug, Clone, PartialEq)]
pub struct Undoing {
    pub inverses: Vec<Effect>,
    /// In words.
    pub irreversible: Vec<String>,
}

impl Undoing {
    /// Of effects in the order in which they happened.
    #[must_use]
    pub fn of(effects: &[Effect]) -> Self {
        let mut undoing = Self { inverses: Vec::new(), irreversible: Vec::new() };
        for effect in effects.iter().rev() {
            match effect.inverse() {
                Inverse::Effect(inverse) => undoing.inverses.push(*inverse),
                Inverse::Irreversible => undoing.irreversible.push(effect.summary()),
            }
        }
        undoing
    }

    /// Whether all of it could happen now.
    ///
    /// # Errors
    /// `conflict` with the first reason why not; whatever the host lacks.
    pub async fn check(&self, host: &Host) -> Result<(), Failure> {
        let mut planned = Vec::new();
        for inverse in &self.inverses {
            let foreseen = inverse.clone().foresee(host, &planned).await.map_err(|why| conflict(inverse, why))?;
            planned.push(foreseen.effect);
        }
        Ok(())
    }

    /// Let it happen, or be planned: the recorder knows.
    ///
    /// # Errors
    /// The first inverse's that failed; the ones before it are the recorder's to roll back.
    pub async fn perform(self, recorder: &mut Recorder) -> Result<(), Failure> {
        for inverse in self.inverses {
            let shown = inverse.clone();
            recorder.perform(inverse).await.map_err(|why| conflict(&shown, why))?;
        }
        Ok(())
    }
}

/// What was there is not: that is a conflict with what happened since.
fn conflict(inverse: &Effect, why: Failure) -> Failure {
    match why {
        Failure::Conflict(text) | Failure::NotFound(text) => {
            Failure::Conflict(format!("can't {}: {text}", inverse.summary()))
        }
        other => other,
    }
}
