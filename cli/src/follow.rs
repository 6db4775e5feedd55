//! Waiting for a command's end: the event stream tells when to look, the command itself
//! tells how it is. Survives a stream that breaks or a backend that restarts; gives up
//! when the time is over.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::events::Event;
use crate::output::{Out, Progress};
use crate::parse;

/// Between two looks at a command whose stream is silent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Between two tries to open a stream.
const PAUSE: Duration = Duration::from_secs(1);
/// Events that were read and not yet shown.
const BUFFER: usize = 256;

/// Whether nothing more will happen to this command.
#[must_use]
pub fn has_ended(command: &Value) -> bool {
    matches!(command["state"].as_str(), Some("finished" | "cancelled" | "expired"))
}

/// The command as it is when it has ended, or when `limit` is over. Without a limit the
/// command's own expiry ends the waiting.
///
/// # Errors
/// The backend's refusal, or that it stays out of reach.
pub fn follow(client: &Client, out: &Out, command: &Value, limit: Option<Duration>) -> Result<Value, Error> {
    let id = command["id"].as_str().unwrap_or_default().to_owned();
    let mut progress = out.progress();
    let result =
        Follower { client, id, deadline: limit.map(|limit| Instant::now() + limit), last: None }.run(&mut progress);
    progress.clear();
    result
}

struct Follower<'a> {
    client: &'a Client,
    id: String,
    deadline: Option<Instant>,
    last: Option<String>,
}

impl Follower<'_> {
    fn run(&mut self, progress: &mut Progress) -> Result<Value, Error> {
        loop {
            let events = self.open();
            // Looked at after the stream is open, so that no end falls between the two.
            let seen = self.look(progress);
            match (seen, events) {
                (Ok(command), _) if has_ended(&command) || self.left() == Some(Duration::ZERO) => return Ok(command),
                (Ok(_), Some(events)) => {
                    if let Some(command) = self.listen(&events, progress) {
                        return Ok(command);
                    }
                }
                (Ok(_), None) => {}
                // A backend that restarts is back soon; one that refuses stays so.
                (Err(error), _) if error.exit() != Exit::Unreachable || self.left() == Some(Duration::ZERO) => {
                    return Err(error);
                }
                (Err(_), _) => {}
            }
            thread::sleep(self.left().unwrap_or(PAUSE).min(PAUSE));
        }
    }

    /// Until the stream ends; the command if it ended or the time is over.
    fn listen(&mut self, events: &Receiver<Event>, progress: &mut Progress) -> Option<Value> {
        loop {
            match events.recv_timeout(self.left().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) {
                Ok(event) => {
                    let data = serde_json::from_str(&event.data).unwrap_or_default();
                    self.last = event.id.or(self.last.take());
                    match event.name.as_str() {
                        "invocation" => progress.settled(&data),
                        "progress" => progress.step(&data),
                        "finished" => return self.look(progress).ok().filter(has_ended),
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let over = self.left() == Some(Duration::ZERO);
                    if let Some(command) = self.look(progress).ok().filter(|command| over || has_ended(command)) {
                        return Some(command);
                    }
                    if over {
                        return None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn look(&self, progress: &mut Progress) -> Result<Value, Error> {
        let command = self.client.get(&format!("/commands/{}", parse::segment(&self.id)), &[])?;
        progress.counts(&command["counts"]);
        Ok(command)
    }

    /// The stream, read by a thread of its own that ends with it, with the receiver, or
    /// with the program.
    fn open(&self) -> Option<Receiver<Event>> {
        let path = format!("/commands/{}/events", parse::segment(&self.id));
        let stream = self.client.events(&path, self.last.as_deref()).ok()?;
        let (send, receive) = sync_channel(BUFFER);
        thread::spawn(move || stream.take_while(|event| send.send(event.clone()).is_ok()).for_each(drop));
        Some(receive)
    }

    /// Time until the deadline.
    fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
