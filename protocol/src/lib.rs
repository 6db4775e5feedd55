//! What the backend and its gateways say to each other; no I/O.
//!
//! - [`id`]: agents, commands, invocations
//! - [`warrant`]: the signed order for one command, and its verification by one gateway
//! - [`approval`]: operators' own signatures over a command
//! - [`merkle`]: the tree over a command's frozen targets (RFC 6962 hashing)
//! - [`frame`]: the closed lists of frames of either sender, their sizes and rates
//! - [`outcome`]: how an invocation ended, with failure, effects, log and cost
//! - [`receipt`]: a gateway's signed and chained record of an invocation, and its verification
//! - [`telemetry`]: one health sample of a host
//! - [`ecs`]: log lines in the Elastic Common Schema
//! - [`trace`]: the context of a trace, and timings under it
//! - [`exposition`]: how either program writes its metrics out
//! - [`chunk`]: the binary frame that carries a part of a plugin

pub mod approval;
pub mod chunk;
pub mod ecs;
pub mod exposition;
pub mod frame;
pub mod id;
pub mod merkle;
pub mod outcome;
pub mod receipt;
pub mod shadow;
pub mod telemetry;
pub mod trace;
pub mod warrant;

/// The one protocol version spoken here; a peer of another is refused at the handshake.
pub const VERSION: u32 = 1;

/// The WebSocket path on the agents' port.
pub const PATH: &str = "/ws/agent";
