//! Readings of this very host.

use viworks_signing::grant::{Patterns, Scopes, SystemScope};
use viworks_signing::release::EffectClass;

use super::super::wit::viworks::gateway::system::Host as _;
use super::super::wit::viworks::gateway::types;
use super::*;
use crate::effects::bench::Bench;
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

#[tokio::test]
async fn services_are_asked_within_the_grant_only() {
    let bench = Bench::new(|_, _| {});
    let services = Patterns::parse(["ssh*"]).unwrap();
    let policy = Scopes { system: Some(SystemScope { services }), ..Scopes::default() };
    let release = Scopes { system: Some(SystemScope::default()), ..Scopes::default() };
    let mut call = bench.call(&release, &policy, EffectClass::Read).await;
    let found = call.get_services(vec!["ssh".into(), "sshd.service".into()]).await.unwrap().unwrap();
    assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["ssh", "sshd.service"]);
    let refused = call.get_services(vec!["ssh".into(), "cron".into()]).await.unwrap();
    assert!(matches!(refused, Err(types::Failure::Denied(d)) if d.rule == "policy: system.services"));
    let bad = call.get_services(vec!["--host=x".into()]).await.unwrap();
    assert!(matches!(bad, Err(types::Failure::InvalidArgument(_))));
    let many = call.get_services(vec!["ssh".into(); 65]).await.unwrap();
    assert!(matches!(many, Err(types::Failure::InvalidArgument(_))));
    assert!(call.get_cpu().await.unwrap().is_ok() && call.get_disks().await.unwrap().is_ok());
    assert!(call.get_host().await.unwrap().is_ok() && call.get_memory().await.unwrap().is_ok());
    assert!(call.get_load().await.unwrap().is_ok() && call.get_network().await.unwrap().is_ok());

    let mut none = bench.call(&release, &Scopes::default(), EffectClass::Read).await;
    assert!(matches!(none.get_cpu().await.unwrap(), Err(types::Failure::Denied(d)) if d.rule == "grant: system"));
    assert!(none.get_services(Vec::new()).await.unwrap().is_err());
}
