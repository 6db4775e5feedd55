//! The host's health in one report. A part that can't be read is a warning and not the
//! end of the report; a refusal by the grant is the end.

mod warnings;

use exports::viworks::health::verbs::{Guest, Health, Status, Thresholds};
use viworks_sdk::{Failure, Result, system};
use warnings::Warnings;

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "viworks:health/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/system@1.0.0": viworks_sdk::system,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn get_system_health(services: Option<Vec<String>>, thresholds: Option<Thresholds>) -> Result<Health> {
        let mut warnings = Warnings::new(thresholds);
        let host = part(&mut warnings, "host", system::get_host())?;
        let cpu = part(&mut warnings, "cpu", system::get_cpu())?;
        let memory = part(&mut warnings, "memory", system::get_memory())?;
        let load = part(&mut warnings, "load", system::get_load())?;
        let disks = part(&mut warnings, "disks", system::get_disks())?.unwrap_or_default();
        let networks = part(&mut warnings, "networks", system::get_network())?.unwrap_or_default();
        let services = match services.filter(|names| !names.is_empty()) {
            Some(names) => part(&mut warnings, "services", system::get_services(&names))?.unwrap_or_default(),
            None => Vec::new(),
        };
        if let Some(cpu) = &cpu {
            warnings.cpu(cpu);
        }
        if let Some(memory) = &memory {
            warnings.memory(memory);
        }
        if let Some(load) = &load {
            warnings.load(load, cpu.as_ref().map_or(1, |c| c.cores));
        }
        disks.iter().for_each(|disk| warnings.disk(disk));
        services.iter().for_each(|service| warnings.service(service));

        let warnings = warnings.into_list();
        let status = if warnings.is_empty() { Status::Healthy } else { Status::Degraded };
        Ok(Health { status, warnings, host, cpu, memory, load, disks, networks, services })
    }
}

/// One part of the report, or a warning in its place.
fn part<T>(warnings: &mut Warnings, name: &str, read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(denied @ (Failure::Denied(_) | Failure::InvalidArgument(_))) => Err(denied),
        Err(failure) => {
            warnings.unreadable(name, failure.text());
            Ok(None)
        }
    }
}

export!(Plugin);
