//! The one binary frame: a piece of a plugin's component or of its signed statements.
//! Layout: `V1` · part (1) · SHA-256 of the component (32) · offset (4, big endian) ·
//! total (4, big endian) · bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The most bytes of a plugin in one frame, so that frames of invocations never wait long.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most chunks that a gateway takes in a minute: 64 large plugins at once.
pub const PER_MINUTE: u32 = 30_000;

const HEADER: usize = 2 + 1 + 32 + 4 + 4;

/// Which file of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `<plugin>.wasm`
    Component,
    /// `<plugin>.wasm.intoto.jsonl`
    Statements,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub part: Part,
    /// Of the component, whichever part this is.
    pub digest: [u8; 32],
    pub offset: u32,
    /// Bytes of the whole part.
    pub total: u32,
    pub bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("binary frame is not a plugin chunk")]
    Header,
    #[error("chunk lies outside its part")]
    Range,
}

impl Chunk {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.bytes.len());
        out.put_slice(b"V1");
        out.put_u8(match self.part {
            Part::Component => 0,
            Part::Statements => 1,
        });
        out.put_slice(&self.digest);
        out.put_u32(self.offset);
        out.put_u32(self.total);
        out.put_slice(&self.bytes);
        out.freeze()
    }

    /// # Errors
    /// When the frame is no chunk, or lies outside its part.
    pub fn decode(frame: &Bytes) -> Result<Self, ChunkError> {
        if frame.len() < HEADER || frame.len() > HEADER + MAX_BYTES || &frame[..2] != b"V1" {
            return Err(ChunkError::Header);
        }
        let part = match frame[2] {
            0 => Part::Component,
            1 => Part::Statements,
            _ => return Err(ChunkError::Header),
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(&frame[3..35]);
        let number = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let (offset, total) = (number(35), number(39));
        let bytes = frame.slice(HEADER..);
        match offset.checked_add(u32::try_from(bytes.len()).map_err(|_| ChunkError::Range)?) {
            Some(end) if end <= total => Ok(Self { part, digest, offset, total, bytes }),
            _ => Err(ChunkError::Range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decode_inverts_encode(offset in 0u32..1_000, data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total = offset + data.len() as u32;
            let chunk = Chunk { part: Part::Statements, digest: [7; 32], offset, total, bytes: data.into() };
            prop_assert_eq!(Chunk::decode(&chunk.encode()), Ok(chunk));
        }

        #[test]
        fn decode_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Chunk::decode(&Bytes::from(data));
        }
    }
}
