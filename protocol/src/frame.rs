//! The frames: a closed list for each sender, JSON text with one key that names the
//! kind (`{"pong":{"nonce":1}}`); plugin bytes alone travel as binary ([`crate::chunk`]). Each kind has a size and a rate, and what
//! is not on its sender's list is refused.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::chunk::Part;
use crate::id::{AgentId, InvocationId};
use crate::merkle::Proof;
use crate::outcome::Report;
use crate::telemetry::Sample;
use crate::trace::TraceContext;
use crate::warrant::Order;

/// No frame of either sender is larger.
pub const MAX_FRAME: usize = 2 * 1024 * 1024;

/// What a gateway may say. It speaks of itself alone: who it is, its certificate says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GatewayFrame {
    /// The first frame, once.
    Hello(Hello),
    /// The answer to a ping: the round trip that presence rests on.
    Pong {
        nonce: u64,
    },
    /// It is journaled here: the gateway answers for it from now on.
    Accepted {
        invocation: InvocationId,
    },
    Progress {
        invocation: InvocationId,
        done: u32,
        total: Option<u32>,
        message: String,
    },
    /// Sent again until it is acknowledged.
    Result {
        invocation: InvocationId,
        report: Report,
    },
    Telemetry {
        sample: Sample,
    },
    /// Ask for a part of a plugin from `offset` on; chunks come until its end.
    Fetch {
        digest: String,
        part: Part,
        offset: u32,
    },
    /// What became of an announced plugin.
    Plugin {
        status: PluginStatus,
    },
    /// Ask for a file of the release repository's metadata, for example `2.root.json`.
    Metadata {
        name: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub protocol: u32,
    /// Must equal the certificate's identity.
    pub agent: AgentId,
    /// The gateway program's version.
    pub version: String,
    /// Random, made at the gateway's start: tells a restart from a reconnect.
    pub boot: String,
    #[serde(default)]
    pub site: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub max_concurrency: u32,
    pub plugins: Vec<PluginStatus>,
    /// SPKI PEM of the key that signs this gateway's receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<String>,
}

/// One plugin on one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginStatus {
    pub plugin: String,
    pub version: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    pub state: PluginState,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// It is there to be planned only, beside the release that serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    Fetching,
    Active,
    Refused,
}

/// What the backend may say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BackendFrame {
    /// The answer to `Hello`.
    Welcome {
        protocol: u32,
        session: String,
        time_ms: u64,
        heartbeat_secs: u32,
    },
    Ping {
        nonce: u64,
        time_ms: u64,
    },
    /// One invocation. Written by [`invoke_frame`], so that `order` is serialised once.
    Invoke {
        proof: Proof,
        order: Order,
        /// A `traceparent`, where this invocation is traced ([`crate::trace`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
    },
    Cancel {
        invocation: InvocationId,
    },
    /// The result is durable: the gateway may forget it.
    Ack {
        invocation: InvocationId,
    },
    /// The plugins that this gateway should have. What it lacks, it fetches.
    Plugins {
        plugins: Vec<PluginOffer>,
    },
    /// The release repository has news: its timestamp's version.
    Repository {
        timestamp: u64,
    },
    /// A file of the repository's metadata, whole; `None`: there is no such file.
    Metadata {
        name: String,
        text: Option<String>,
    },
    /// The session ends; come back after so many seconds.
    Goodbye {
        reason: String,
        retry_after_secs: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginOffer {
    pub plugin: String,
    pub version: String,
    pub digest: String,
    /// Bytes.
    pub component_size: u32,
    pub statements_size: u32,
    /// To be planned only, beside the release of the same plugin that serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}

/// The text of an `Invoke` frame around an order that was serialised once for all.
///
/// # Errors
/// When the proof can't be written as JSON, which does not happen.
pub fn invoke_frame(
    proof: &Proof,
    order_json: &str,
    trace: Option<&TraceContext>,
) -> Result<String, serde_json::Error> {
    let proof = serde_json::to_string(proof)?;
    // Its text has nothing that JSON escapes.
    let trace = trace.map(|trace| format!(r#","trace":"{trace}""#)).unwrap_or_default();
    Ok(format!(r#"{{"invoke":{{"proof":{proof},"order":{order_json}{trace}}}}}"#))
}

/// The bounds of one kind of frame: bytes each, and how many a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub kind: &'static str,
    pub max_bytes: usize,
    pub per_minute: u32,
}

impl GatewayFrame {
    /// The bounds that the backend holds this frame to.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let (kind, max_bytes, per_minute) = match self {
            Self::Hello(_) => ("hello", 64 * 1024, 1),
            Self::Pong { .. } => ("pong", 256, 120),
            Self::Accepted { .. } => ("accepted", 256, 120_000),
            Self::Progress { .. } => ("progress", 4 * 1024, 6_000),
            Self::Result { .. } => ("result", MAX_FRAME, 120_000),
            Self::Telemetry { .. } => ("telemetry", 16 * 1024, 30),
            Self::Fetch { .. } => ("fetch", 512, 600),
            Self::Plugin { .. } => ("plugin", 8 * 1024, 600),
            Self::Metadata { .. } => ("metadata", 256, 600),
        };
        Bounds { kind, max_bytes, per_minute }
    }
}

impl BackendFrame {
    /// The bounds that a gateway holds this frame to.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let (kind, max_bytes, per_minute) = match self {
            Self::Welcome { .. } => ("welcome", 1_024, 1),
            Self::Ping { .. } => ("ping", 256, 120),
            Self::Invoke { .. } => ("invoke", MAX_FRAME, 120_000),
            Self::Cancel { .. } => ("cancel", 256, 120_000),
            Self::Ack { .. } => ("ack", 256, 240_000),
            Self::Plugins { .. } => ("plugins", 256 * 1_024, 120),
            Self::Repository { .. } => ("repository", 256, 60),
            Self::Metadata { .. } => ("metadata", MAX_FRAME, 600),
            Self::Goodbye { .. } => ("goodbye", 4_096, 1),
        };
        Bounds { kind, max_bytes, per_minute }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kinds_and_fields_are_refused() {
        for bad in [
            r#"{"exec":{"cmd":"id"}}"#,
            r#"{"pong":{"nonce":1,"agent":"other"}}"#,
            r#"{"pong":{"nonce":1},"cancel":{}}"#,
            r#"{"pong":{}}"#,
            r#"{"nonce":1}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<GatewayFrame>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<GatewayFrame>(r#"{"pong":{"nonce":1}}"#).is_ok());
        assert!(serde_json::from_str::<BackendFrame>(r#"{"pong":{"nonce":1}}"#).is_err());
    }

    #[test]
    fn the_written_invoke_frame_parses() {
        let proof = Proof { index: 0, count: 1, siblings: vec![] };
        let order = r#"{"warrant":{"payloadType":"t","payload":"","signatures":[]},"args":{"a":1}}"#;
        let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        for context in [None, parent] {
            let text = invoke_frame(&proof, order, context.as_ref()).unwrap_or_default();
            match serde_json::from_str(&text) {
                Ok(BackendFrame::Invoke { proof: p, order, trace }) => {
                    assert_eq!(p, proof);
                    assert_eq!(order.args.get(), r#"{"a":1}"#);
                    assert_eq!(trace, context.map(|context| context.to_string()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
