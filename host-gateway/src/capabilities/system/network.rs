//! Counters of network interfaces, from `/proc/net/dev` and `/sys/class/net`.

use std::path::Path;

use super::super::wit::viworks::gateway::system as wit;
use super::unreadable;
use crate::failure::Failure;

const MAX_INTERFACES: usize = 1_000;

/// All interfaces of the gateway's network namespace, by name.
#[allow(clippy::cast_precision_loss, reason = "the interface has no 64-bit integers; exact below 2^53")]
pub(super) fn list() -> Result<Vec<wit::Network>, Failure> {
    let devices = procfs::net::dev_status().map_err(|e| unreadable("/proc/net/dev", &e))?;
    let mut found: Vec<_> = devices
        .into_values()
        .map(|device| wit::Network {
            up: is_up(&device.name),
            received_bytes: device.recv_bytes as f64,
            sent_bytes: device.sent_bytes as f64,
            receive_errors: device.recv_errs as f64,
            send_errors: device.sent_errs as f64,
            name: device.name,
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.truncate(MAX_INTERFACES);
    Ok(found)
}

/// Bytes received and sent over the host's edge: its hardware, or in a container all that
/// is not the loopback. Bridges and tunnels would count the same bytes again.
pub(super) fn edge(all: &[wit::Network]) -> (f64, f64) {
    let hardware = |n: &&wit::Network| sys(&n.name).join("device").exists();
    let any = all.iter().any(|n| hardware(&n));
    let counted = all.iter().filter(|n| if any { hardware(n) } else { n.name != "lo" });
    counted.fold((0.0, 0.0), |(received, sent), n| (received + n.received_bytes, sent + n.sent_bytes))
}

/// Administratively up (IFF_UP, netdevice(7)) and not known to be without a carrier.
fn is_up(name: &str) -> bool {
    let read = |file: &str| std::fs::read_to_string(sys(name).join(file)).unwrap_or_default();
    let flags = u32::from_str_radix(read("flags").trim().trim_start_matches("0x"), 16).unwrap_or(0);
    flags & 1 == 1 && !matches!(read("operstate").trim(), "down" | "lowerlayerdown" | "notpresent")
}

fn sys(name: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(name)
}
