//! The verbs on containers. Which of them a plugin may see and remove is the gateway's to
//! decide; here is what is meant by cleaning up, and what is told about it.

use exports::viworks::containers::verbs::{Cleanup, Guest, Kept};
use viworks_sdk::containers::{self, Container, Filter};
use viworks_sdk::{Failure, Progress, Result, info, warn};

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "viworks:containers/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/log@1.0.0": viworks_sdk::log,
        "viworks:gateway/progress@1.0.0": viworks_sdk::progress,
        "viworks:gateway/containers@1.0.0": viworks_sdk::containers,
    },
});

const DAY_SECS: u32 = 24 * 60 * 60;

struct Plugin;

impl Guest for Plugin {
    fn list_containers(
        name: Option<String>,
        states: Option<Vec<String>>,
        labels: Option<Vec<String>>,
        older_than_secs: Option<u32>,
    ) -> Result<Vec<Container>> {
        containers::list(&Filter {
            name,
            states: states.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            older_than_secs,
        })
    }

    fn cleanup_containers(
        older_than_secs: Option<u32>,
        labels: Option<Vec<String>>,
        states: Option<Vec<String>>,
    ) -> Result<Cleanup> {
        let filter = Filter {
            name: None,
            // An empty list would mean every state, and nobody means that by cleaning up.
            states: states.filter(|s| !s.is_empty()).unwrap_or_else(|| vec!["exited".into(), "dead".into()]),
            labels: labels.unwrap_or_default(),
            older_than_secs: Some(older_than_secs.unwrap_or(DAY_SECS)),
        };
        let matching = containers::list(&filter)?;
        let mut progress = Progress::of(matching.len());
        let mut done = Cleanup { removed: Vec::new(), kept: Vec::new() };
        let mut refused = None;
        for container in matching {
            match containers::remove(&container.id) {
                Ok(removed) => done.removed.push(removed),
                // Somebody else was faster: it is gone, and not by us.
                Err(Failure::NotFound(_)) => info!("{} was gone already", container.name),
                Err(failure) => {
                    warn!("{} was not removed: {}", container.name, failure.text());
                    done.kept.push(Kept { reason: failure.text().to_owned(), container });
                    refused.get_or_insert(failure);
                }
            }
            progress.step(&format!("{} removed", done.removed.len()));
        }
        match refused {
            // Nothing was achieved and something was refused: that is no success.
            Some(failure) if done.removed.is_empty() => Err(failure),
            _ => {
                info!("removed {}, kept {}", done.removed.len(), done.kept.len());
                Ok(done)
            }
        }
    }
}

export!(Plugin);
