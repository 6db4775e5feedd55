//! The context of a trace as it travels (W3C Trace Context, `traceparent`), and the timings
//! that a gateway gives back under it. Not signed and trusted by nobody: it orders nothing,
//! and what does not parse is as good as absent.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Timings in one report, and bytes of a timing's name.
pub const MAX_TIMINGS: usize = 64;
pub const MAX_NAME: usize = 64;

/// Which trace, and which span of it is the parent of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub sampled: bool,
}

impl TraceContext {
    /// A `traceparent` of version 00, or of a later one read as it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() > 128
            || version.len() != 2
            || version == "ff"
            || ![version, trace, span, flags].into_iter().all(lower)
        {
            return None;
        }
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let (mut context, mut flag) = (Self { trace: [0; 16], span: [0; 8], sampled: false }, [0; 1]);
        hex::decode_to_slice(trace, &mut context.trace).ok()?;
        hex::decode_to_slice(span, &mut context.span).ok()?;
        hex::decode_to_slice(flags, &mut flag).ok()?;
        context.sampled = flag[0] & 1 == 1;
        (context.trace != [0; 16] && context.span != [0; 8]).then_some(context)
    }

    #[must_use]
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace), hex::encode(self.span))
    }
}

/// One step of an invocation on its gateway: `admission`, `queue`, `accounts.create`, ….
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    pub name: String,
    /// Microseconds from the order's arrival to the step's begin.
    pub at_us: u64,
    pub took_us: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Timing {
    /// Whether its name is one that a gateway gives.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        (1..=MAX_NAME).contains(&self.name.len()) && self.name.bytes().all(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let Some(context) = TraceContext::parse(text) else { panic!("a context") };
        assert!(context.sampled && context.to_string() == text);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes";
        assert!(TraceContext::parse(later).is_some_and(|c| !c.sampled));
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        assert_eq!(TraceContext::parse(&"0".repeat(100_000)), None);
    }
}
