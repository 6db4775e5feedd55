//! How many frames of each kind a session may send in a minute: a counter a kind and one
//! window, so that an idle session costs a few bytes.

use viworks_protocol::frame::{Bounds, GatewayFrame};

const KINDS: usize = 9;
const WINDOW_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Rates {
    window_ms: u64,
    counts: [u32; KINDS],
}

/// Which bound a frame broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error("a frame of kind {kind} has {bytes} bytes, at most {max} are taken")]
    Size { kind: &'static str, bytes: usize, max: usize },
    #[error("more than {max} frames of kind {kind} in a minute")]
    Rate { kind: &'static str, max: u32 },
}

fn place(frame: &GatewayFrame) -> usize {
    match frame {
        GatewayFrame::Hello(_) => 0,
        GatewayFrame::Pong { .. } => 1,
        GatewayFrame::Accepted { .. } => 2,
        GatewayFrame::Progress { .. } => 3,
        GatewayFrame::Result { .. } => 4,
        GatewayFrame::Telemetry { .. } => 5,
        GatewayFrame::Fetch { .. } => 6,
        GatewayFrame::Plugin { .. } => 7,
        GatewayFrame::Metadata { .. } => 8,
    }
}

impl Rates {
    /// Count a frame of `bytes` at `now_ms`.
    pub(crate) fn take(&mut self, frame: &GatewayFrame, bytes: usize, now_ms: u64) -> Result<&'static str, Excess> {
        let Bounds { kind, max_bytes, per_minute } = frame.bounds();
        if bytes > max_bytes {
            return Err(Excess::Size { kind, bytes, max: max_bytes });
        }
        if now_ms.saturating_sub(self.window_ms) >= WINDOW_MS {
            *self = Self { window_ms: now_ms, ..Self::default() };
        }
        let count = &mut self.counts[place(frame)];
        *count += 1;
        if *count > per_minute { Err(Excess::Rate { kind, max: per_minute }) } else { Ok(kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_rate_hold_by_kind() {
        let mut rates = Rates::default();
        let pong = GatewayFrame::Pong { nonce: 1 };
        assert_eq!(rates.take(&pong, 257, 1_000), Err(Excess::Size { kind: "pong", bytes: 257, max: 256 }));
        for _ in 0..120 {
            assert_eq!(rates.take(&pong, 20, 100_000), Ok("pong"));
        }
        assert_eq!(rates.take(&pong, 20, 100_001), Err(Excess::Rate { kind: "pong", max: 120 }));
        assert_eq!(rates.take(&pong, 20, 160_000), Ok("pong"), "a new minute");
    }
}
