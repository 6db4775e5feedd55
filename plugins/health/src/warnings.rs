//! Which measurements deserve a warning. Refuses to warn of what an operator can't mend:
//! read-only images are always full.

use viworks_sdk::system::{Cpu, Disk, LoadAverage, Memory, Service};

use crate::exports::viworks::health::verbs::{Thresholds, Warning};

pub struct Warnings {
    thresholds: Thresholds,
    list: Vec<Warning>,
}

const DEFAULTS: Thresholds = Thresholds {
    cpu_percent: Some(95.0),
    memory_percent: Some(90.0),
    swap_percent: Some(80.0),
    disk_percent: Some(90.0),
    inodes_percent: Some(90.0),
    load_per_core: Some(2.0),
};

impl Warnings {
    pub fn new(given: Option<Thresholds>) -> Self {
        let thresholds = given.map_or(DEFAULTS, |given| Thresholds {
            cpu_percent: given.cpu_percent.or(DEFAULTS.cpu_percent),
            memory_percent: given.memory_percent.or(DEFAULTS.memory_percent),
            swap_percent: given.swap_percent.or(DEFAULTS.swap_percent),
            disk_percent: given.disk_percent.or(DEFAULTS.disk_percent),
            inodes_percent: given.inodes_percent.or(DEFAULTS.inodes_percent),
            load_per_core: given.load_per_core.or(DEFAULTS.load_per_core),
        });
        Self { thresholds, list: Vec::new() }
    }

    pub fn into_list(self) -> Vec<Warning> {
        self.list
    }

    pub fn unreadable(&mut self, part: &str, why: &str) {
        self.say(part, format!("could not be read: {why}"));
    }

    pub fn cpu(&mut self, cpu: &Cpu) {
        self.check("cpu", "busy", cpu.used_percent, self.thresholds.cpu_percent);
    }

    pub fn memory(&mut self, memory: &Memory) {
        let used = share(memory.used_mib, memory.total_mib);
        self.check("memory", "used", used, self.thresholds.memory_percent);
        let swapped = share(memory.swap_used_mib, memory.swap_total_mib);
        self.check("swap", "used", swapped, self.thresholds.swap_percent);
    }

    pub fn load(&mut self, load: &LoadAverage, cores: u32) {
        let by_core = load.five / cores.max(1) as f32;
        let Some(threshold) = self.thresholds.load_per_core.filter(|t| by_core >= *t) else { return };
        let message = format!("five-minute load of {:.1} on {cores} cores", load.five);
        self.list.push(Warning { subject: "load".into(), message, value: Some(by_core), threshold: Some(threshold) });
    }

    pub fn disk(&mut self, disk: &Disk) {
        if disk.read_only {
            return;
        }
        let subject = format!("disk {}", disk.mount_point);
        self.check(&subject, "used", disk.used_percent, self.thresholds.disk_percent);
        self.check(&subject, "of its inodes used", disk.inodes_used_percent, self.thresholds.inodes_percent);
    }

    /// A host without systemd says `unknown`, which is no fault of the service.
    pub fn service(&mut self, service: &Service) {
        if !matches!(service.active_state.as_str(), "active" | "reloading" | "unknown") {
            let message = format!("is {} ({})", service.active_state, service.sub_state);
            self.say(&format!("service {}", service.name), message);
        }
    }

    fn check(&mut self, subject: &str, word: &str, percent: f32, threshold: Option<f32>) {
        let Some(threshold) = threshold.filter(|t| percent >= *t) else { return };
        let message = format!("{percent:.1} % {word}");
        self.list.push(Warning { subject: subject.into(), message, value: Some(percent), threshold: Some(threshold) });
    }

    fn say(&mut self, subject: &str, message: String) {
        self.list.push(Warning { subject: subject.into(), message, value: None, threshold: None });
    }
}

fn share(used: u32, total: u32) -> f32 {
    if total == 0 { 0.0 } else { used as f32 / total as f32 * 100.0 }
}
