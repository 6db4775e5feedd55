//! What gateway and broker say to each other: a frame is a length (four bytes, big endian)
//! and that many bytes of JSON. The broker greets, the gateway asks, the broker answers, one
//! request at a time. Refuses frames over their bound before reading them, and every request
//! that is not listed here.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use viworks_protocol::id::InvocationId;

use crate::capabilities::vpn::{Kind, name::PeerName};
use crate::effects::Effect;
use crate::failure::Failure;

/// Both sides must speak the same; there is no other yet.
pub const PROTOCOL: u32 = 1;

/// The largest request: a plan's effects may all be in it.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// The largest answer.
pub const MAX_REPLY: usize = 8 * 1024 * 1024;

/// Effects that may have been planned before the one that is asked for.
pub const MAX_PLANNED: usize = 1_000;

/// What the broker says first, to the right uid alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub protocol: u32,
    pub version: String,
    /// Lowercase hex SHA-256 of the policy file by which it judges; why there is none.
    pub policy: Result<String, String>,
}

/// On whose behalf, as the gateway says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behalf {
    pub invocation: InvocationId,
    /// Which effect of it.
    pub seq: u32,
    /// Whether it takes that effect back.
    pub back: bool,
}

/// All that can be asked of the broker. No path, no program, no text of a file but the
/// public keys of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What an effect would be.
    Foresee {
        effect: Box<Effect>,
        planned: Vec<Effect>,
    },
    /// Whether it happened.
    Trace {
        effect: Box<Effect>,
    },
    /// Let it happen.
    Apply {
        behalf: Behalf,
        effect: Box<Effect>,
    },
    /// How the accounts that the policy covers are locked. Never a hash.
    Locks {},
    /// The public keys of an account.
    Keys {
        name: String,
        uid: u32,
    },
    Peers {
        kind: Kind,
        planned: Vec<Effect>,
    },
    /// The peer that removing it would remove.
    Peer {
        kind: Kind,
        name: PeerName,
        planned: Vec<Effect>,
    },
    Engine {},
    /// The containers that the policy covers.
    Containers {
        #[serde(default)]
        name: Option<String>,
    },
    Container {
        id: String,
    },
    /// Whether a script is there and is the pinned one.
    Script {
        name: String,
        sha256: String,
    },
    /// Whether a secret is there. Never its bytes.
    Secret {
        name: String,
    },
    /// Remove homes that waited in quarantine for longer than they may.
    Sweep {},
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// `malformed`, `too-large`, `policy`, `invalid`, `unsealed`, `busy`, `unavailable`.
    pub code: String,
    /// The rule, where one refused: `policy: accounts.uids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done(Value),
    /// The host was asked and said no.
    Failed(Failure),
    /// The host was not asked.
    Refused(Refusal),
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {got} bytes, where at most {max} are taken")]
    TooLarge { got: usize, max: usize },
    #[error("a frame that is not what is spoken here")]
    Malformed(#[source] serde_json::Error),
    #[error("the other side ended")]
    Ended,
    #[error("the socket failed")]
    Io(#[from] io::Error),
}

impl Request {
    /// For the audit log.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Foresee { .. } => "foresee",
            Self::Trace { .. } => "trace",
            Self::Apply { .. } => "apply",
            Self::Locks {} => "locks",
            Self::Keys { .. } => "keys",
            Self::Peers { .. } => "peers",
            Self::Peer { .. } => "peer",
            Self::Engine {} => "engine",
            Self::Containers { .. } => "containers",
            Self::Container { .. } => "container",
            Self::Script { .. } => "script",
            Self::Secret { .. } => "secret",
            Self::Sweep {} => "sweep",
        }
    }
}

/// Read one frame of at most `max` bytes.
///
/// # Errors
/// [`FrameError::Ended`] where the other side closed between frames.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), max: usize) -> Result<T, FrameError> {
    let mut length = [0_u8; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            return Err(FrameError::Ended);
        }
        Err(e) => return Err(e.into()),
    }
    let got = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if got > max {
        return Err(FrameError::TooLarge { got, max });
    }
    // Grows with what arrives: a length alone takes no memory.
    let mut bytes = Vec::new();
    from.take(got as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < got {
        return Err(FrameError::Ended);
    }
    serde_json::from_slice(&bytes).map_err(FrameError::Malformed)
}

/// Write one frame.
///
/// # Errors
/// When it is larger than `max`, or the socket fails.
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), frame: &T, max: usize) -> Result<(), FrameError> {
    let mut bytes = vec![0_u8; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(FrameError::Malformed)?;
    let got = bytes.len() - 4;
    let length = u32::try_from(got).ok().filter(|_| got <= max).ok_or(FrameError::TooLarge { got, max })?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    to.write_all(&bytes).await?;
    Ok(to.flush().await?)
}
