//! The broker's door: who connects is asked of the kernel (SO_PEERCRED), and only the
//! gateway's uid is greeted. Refuses strangers without a word, bounds frames, waits and
//! connections, and files every refusal.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::{Broker, Peer};
use super::wire::{self, FrameError, MAX_REPLY, MAX_REQUEST, Refusal, Reply, Request};
use crate::audit::Audit;
use crate::effects::Effect;
use crate::failure::chain;

/// Connections at a time. What comes beyond waits in the kernel's queue.
const CONNECTIONS: usize = 32;
/// A connection without a request is closed after this.
const WAIT: Duration = Duration::from_secs(30);
/// How long a client may take to read its answer.
const TAKE: Duration = Duration::from_secs(30);
const FLUSH: Duration = Duration::from_secs(3);

pub(crate) struct Server {
    pub(crate) listener: UnixListener,
    pub(crate) uid: u32,
    /// End after this long without a connection.
    pub(crate) idle: Option<Duration>,
    pub(crate) audit: Audit,
    pub(crate) broker: Arc<Broker>,
}

impl Server {
    /// Serve until told to stop, or idle. Ends once what was begun has ended, within `drain`.
    pub(crate) async fn run(self, stop: CancellationToken, drain: Duration) {
        let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
        while let Some((stream, permit)) = self.next(&room, &tasks, &stop).await {
            let Some(peer) = self.admitted(&stream) else { continue };
            let (broker, audit, stop) = (Arc::clone(&self.broker), self.audit.clone(), stop.clone());
            tasks.spawn(async move {
                talk(stream, peer, &broker, &stop).await;
                audit.flush(FLUSH).await;
                drop(permit);
            });
        }
        tasks.close();
        if timeout(drain, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "what was begun did not end in time");
        }
    }

    async fn next(
        &self,
        room: &Arc<Semaphore>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        loop {
            let permit = stop.run_until_cancelled(Arc::clone(room).acquire_owned()).await?.ok()?;
            let accepting = timeout(self.idle.unwrap_or(Duration::from_secs(3_600)), self.listener.accept());
            match stop.run_until_cancelled(accepting).await? {
                Ok(Ok((stream, _))) => return Some((stream, permit)),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a connection was lost");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // Whoever connects now finds the socket, and starts the next.
                Err(_) if self.idle.is_some() && tasks.is_empty() => return None,
                Err(_) => {}
            }
        }
    }

    fn admitted(&self, stream: &UnixStream) -> Option<Peer> {
        let peer = match stream.peer_cred() {
            Ok(cred) => Peer { uid: cred.uid(), pid: cred.pid().unwrap_or_default() },
            Err(error) => {
                tracing::warn!(%error, "a connection of nobody");
                return None;
            }
        };
        if peer.uid == self.uid {
            return Some(peer);
        }
        let Peer { uid, pid } = peer;
        tracing::warn!(target: "audit", uid, pid, decision = "refused", code = "peer", "stranger");
        None
    }
}

async fn talk(mut stream: UnixStream, peer: Peer, broker: &Arc<Broker>, stop: &CancellationToken) {
    if wire::write(&mut stream, &broker.hello(), MAX_REPLY).await.is_err() {
        return;
    }
    loop {
        let reading = timeout(WAIT, wire::read::<Request>(&mut stream, MAX_REQUEST));
        let (reply, last) = match stop.run_until_cancelled(reading).await {
            None | Some(Err(_)) | Some(Ok(Err(FrameError::Ended | FrameError::Io(_)))) => return,
            Some(Ok(Ok(request))) => match answer(&mut stream, request, peer, broker).await {
                Some(reply) => (reply, false),
                None => return,
            },
            Some(Ok(Err(error))) => {
                let code = if matches!(error, FrameError::TooLarge { .. }) { "too-large" } else { "malformed" };
                let message: String = chain(&error).chars().take(300).collect();
                let refusal = Refusal { code: code.into(), rule: None, message };
                peer.refused("frame", &refusal);
                (Reply::Refused(refusal), true)
            }
        };
        let told = match timeout(TAKE, wire::write(&mut stream, &reply, MAX_REPLY)).await {
            Ok(Err(FrameError::TooLarge { got, max })) => {
                let message = format!("an answer of {got} bytes, where at most {max} are given");
                let refusal = Reply::Refused(Refusal { code: "too-large".into(), rule: None, message });
                wire::write(&mut stream, &refusal, MAX_REPLY).await.is_ok()
            }
            Ok(told) => told.is_ok(),
            Err(_) => false,
        };
        // What follows a broken frame is no frame.
        if !told || last {
            return;
        }
    }
}

/// Changes end whoever waits for them, but for a script: it is ended when the gateway
/// closes its connection, which is how a cancel gets here.
async fn answer(stream: &mut UnixStream, request: Request, peer: Peer, broker: &Arc<Broker>) -> Option<Reply> {
    let is_script = matches!(&request, Request::Apply { effect, .. } if matches!(**effect, Effect::Scripts(_)));
    if !is_script {
        return Some(broker.answer(request, peer).await);
    }
    let mut byte = [0_u8; 1];
    tokio::select! {
        reply = broker.answer(request, peer) => Some(reply),
        // Nothing is to be said before the answer, so that whatever comes is the end.
        _ = stream.read(&mut byte) => {
            let Peer { uid, pid } = peer;
            tracing::warn!(target: "audit", uid, pid, decision = "ended", "a script was ended: nobody waits for it");
            None
        }
    }
}
