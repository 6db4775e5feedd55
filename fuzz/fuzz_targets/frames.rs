//! Frames of both senders, and chunks.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use viworks_protocol::chunk::Chunk;
use viworks_protocol::frame::{BackendFrame, GatewayFrame};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = serde_json::from_slice::<GatewayFrame>(bytes) {
        assert!(!frame.bounds().kind.is_empty());
    }
    let _ = serde_json::from_slice::<BackendFrame>(bytes);
    let _ = Chunk::decode(&Bytes::copy_from_slice(bytes));
});
