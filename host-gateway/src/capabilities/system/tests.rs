//! Readings of this very host.

use super::*;
use viworks_protocol::telemetry::GatewaySample;

#[tokio::test]
async fn a_sample_holds_what_the_host_is() {
    let provider = Provider::new(&Config::default());
    let gateway = GatewaySample { running: 7, ..GatewaySample::default() };
    let sample = provider.sample(42, gateway).await.unwrap();
    assert_eq!((sample.at_ms, sample.gateway.running), (42, 7));
    assert!(sample.memory_total_mib > 0 && sample.memory_used_mib <= sample.memory_total_mib, "{sample:?}");
    assert!(sample.uptime_secs > 0 && (0.0..=100.0).contains(&sample.cpu_percent), "{sample:?}");
    assert!(sample.disk_used_percent > 0.0 && sample.disk_used_percent <= 100.0, "{sample:?}");
}

#[test]
fn the_host_has_a_name_and_a_loopback() {
    let host = Provider::new(&Config::default()).host().unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(host.hostname, hostname.trim());
    assert!(!host.kernel.is_empty() && !host.os.is_empty() && !host.architecture.is_empty(), "{host:?}");
    let interfaces = network::list().unwrap();
    let lo = interfaces.iter().find(|n| n.name == "lo").unwrap();
    assert!(lo.receive_errors >= 0.0);
    let load = Provider::new(&Config::default()).load().unwrap();
    assert!(load.processes > 0);
}

#[test]
fn percentages_stay_in_bounds() {
    assert_eq!((percent(1, 4), percent(5, 4), percent(1, 0)), (25.0, 100.0, 0.0));
    assert_eq!((mib(3 << 20), mib(u64::MAX)), (3, u32::MAX));
}
