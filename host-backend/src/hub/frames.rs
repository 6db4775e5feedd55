//! What each frame of a gateway sets in motion. The agent is the session's, never the
//! frame's.

use viworks_protocol::chunk::Part;
use viworks_protocol::frame::{BackendFrame, GatewayFrame};

use super::port::Port;
use super::{Out, PartJob, Session};
use crate::dispatch::Progress;
use crate::hub;
use crate::store::write::{Note, PartKey};

const MAX_WORD: usize = 256;

/// # Errors
/// The rule that the frame broke, and how; the session ends.
pub(super) async fn handle(port: &Port, session: &Session, frame: GatewayFrame) -> Result<(), (&'static str, String)> {
    let agent = &session.agent;
    match frame {
        GatewayFrame::Hello(_) => Err(("malformed", "a second hello".to_owned())),
        GatewayFrame::Pong { nonce } => {
            session.pong(nonce, port.clock.now_ms());
            Ok(())
        }
        GatewayFrame::Accepted { invocation } => {
            port.engine.accepted(agent, invocation).await;
            Ok(())
        }
        GatewayFrame::Progress { invocation, done, total, message } => {
            port.engine.progress(Progress { invocation, agent: agent.clone(), done, total, message });
            Ok(())
        }
        GatewayFrame::Result { invocation, report } => {
            port.engine.result(agent, invocation, &report).await;
            Ok(())
        }
        GatewayFrame::Telemetry { sample } => {
            port.telemetry.offer(agent, sample);
            Ok(())
        }
        GatewayFrame::Fetch { digest, part, offset } => fetch(port, session, PartKey { digest, part }, offset).await,
        GatewayFrame::Metadata { name } => {
            // Only what is mirrored has a frame, the same bytes for all who ask.
            let frame = port.repository.as_ref().and_then(|repository| repository.current().frame(&name));
            let frame = frame.unwrap_or_else(|| hub::text(&BackendFrame::Metadata { name, text: None }));
            // A full queue drops it; the gateway asks again.
            let _ = session.push(Out::Frame(frame));
            Ok(())
        }
        GatewayFrame::Plugin { status } => {
            let words = [&status.plugin, &status.version, &status.digest];
            if words.iter().any(|word| word.len() > MAX_WORD) {
                return Err(("bounds", "a plugin status with too long words".to_owned()));
            }
            port.observer.sighted(agent, &status);
            // What an agent has is what serves there.
            if status.shadow {
                return Ok(());
            }
            let note = Note::Plugin { agent: agent.clone(), status };
            if port.store.note(note).await.is_err() {
                tracing::error!(%agent, "the store is closed");
            }
            Ok(())
        }
    }
}

async fn fetch(port: &Port, session: &Session, key: PartKey, offset: u32) -> Result<(), (&'static str, String)> {
    let mut digest = [0; 32];
    if hex::decode_to_slice(&key.digest, &mut digest).is_err() {
        return Err(("malformed", "the digest is not hex SHA-256".to_owned()));
    }
    let found = match port.catalog.part(&key).await {
        Ok(None) if key.part == Part::Component => match &port.repository {
            Some(repository) => Ok(repository.program(&key.digest).await),
            None => Ok(None),
        },
        found => found,
    };
    match found {
        Ok(Some(bytes)) => {
            if offset as usize > bytes.len() {
                return Err(("malformed", "the offset lies beyond the part".to_owned()));
            }
            let job = PartJob { digest, part: key.part, offset, bytes };
            // A full queue drops it; the gateway asks again.
            let _ = session.push(Out::Part(Box::new(job)));
            Ok(())
        }
        // It may have been withdrawn since it was announced.
        Ok(None) => Ok(()),
        Err(error) => {
            tracing::error!(agent = %session.agent, %error, "a plugin's part can't be read");
            Ok(())
        }
    }
}
