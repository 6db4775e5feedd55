//! One health sample of a host, taken by its gateway every 30 seconds. Sizes are MiB,
//! shares are percent.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Unix milliseconds, by the gateway's estimate of the backend's clock.
    pub at_ms: u64,
    pub cpu_percent: f32,
    pub load_one: f32,
    pub load_five: f32,
    pub load_fifteen: f32,
    pub memory_total_mib: u32,
    pub memory_used_mib: u32,
    pub swap_total_mib: u32,
    pub swap_used_mib: u32,
    /// Of the fullest file system.
    pub disk_used_percent: f32,
    pub network_received_bytes: f64,
    pub network_sent_bytes: f64,
    pub uptime_secs: u32,
    pub gateway: GatewaySample,
}

/// The gateway's own state. Counters are since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySample {
    pub rss_kib: u32,
    pub running: u32,
    pub queued: u32,
    pub outbox: u32,
    pub invocations: u32,
    pub denials: u32,
    pub reconnects: u32,
}
