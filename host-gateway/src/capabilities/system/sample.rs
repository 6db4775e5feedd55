//! The host's part of the gateway's telemetry.

use viworks_protocol::telemetry::{GatewaySample, Sample};

use super::{Provider, network, uptime};
use crate::failure::Failure;

impl Provider {
    /// One health sample. `gateway` is the caller's part, `at_ms` the backend's time in
    /// Unix milliseconds.
    ///
    /// # Errors
    /// `unavailable` when `/proc` can't be read.
    pub async fn sample(&self, at_ms: u64, gateway: GatewaySample) -> Result<Sample, Failure> {
        let cpu = self.cpu.sample().await?;
        let disks = self.disks.list().await?;
        let (memory, load) = (self.memory()?, self.load()?);
        let (network_received_bytes, network_sent_bytes) = network::edge(&network::list()?);
        Ok(Sample {
            at_ms,
            cpu_percent: cpu.used_percent,
            load_one: load.one,
            load_five: load.five,
            load_fifteen: load.fifteen,
            memory_total_mib: memory.total_mib,
            memory_used_mib: memory.used_mib,
            swap_total_mib: memory.swap_total_mib,
            swap_used_mib: memory.swap_used_mib,
            disk_used_percent: disks.iter().filter(|d| !d.read_only).map(|d| d.used_percent).fold(0.0, f32::max),
            network_received_bytes,
            network_sent_bytes,
            uptime_secs: uptime()?,
            gateway,
        })
    }
}
