//! What one invocation may hold: all memories and tables together, and the number of core
//! instances. Refuses growth past the sum, and remembers that it did.

use viworks_signing::release::Limits;
use wasmtime::ResourceLimiter;

use super::engine::{MAX_MEMORIES, MAX_TABLES};

/// Bytes that one element of a table takes on the host.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Handles that a guest may hold at the same time.
pub(crate) const MAX_RESOURCES: usize = 128;

/// Bytes that a guest gets from one call of `get-random-bytes`.
pub(crate) const MAX_RANDOM: u64 = 64 * 1024;

/// Bytes of the host's memory that one copy out of a guest may take: arguments of a host
/// call, or the result. Component values take several times the bytes of their JSON.
pub(crate) fn hostcall_fuel(limits: &Limits) -> usize {
    (limits.output_kib as usize * 1024).saturating_mul(8).clamp(1 << 20, 64 << 20)
}

/// Sums what the guest holds.
#[derive(Debug, Clone)]
pub struct Limiter {
    limit: usize,
    instances: usize,
    held: usize,
    peak: usize,
    refused: bool,
}

impl Limiter {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            limit: (limits.memory_mib as usize) << 20,
            instances: limits.instances as usize,
            held: 0,
            peak: 0,
            refused: false,
        }
    }

    /// The most bytes that were held at the same time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Whether growth was refused: what the guest did next, it did for want of memory.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.refused
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let held = self.held.saturating_add(desired.saturating_sub(current));
        if held > self.limit {
            self.refused = true;
            return false;
        }
        self.held = held;
        self.peak = self.peak.max(held);
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // A growth past the memory's own maximum fails by itself and is no limit of ours.
        Ok(maximum.is_none_or(|max| desired <= max) && self.grow(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(TABLE_ELEMENT);
        Ok(maximum.is_none_or(|max| desired <= max) && self.grow(bytes(current), bytes(desired)))
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_sum() -> wasmtime::Result<()> {
        let mut limiter = Limiter::new(&Limits { memory_mib: 1, ..Limits::default() });
        assert!(limiter.memory_growing(0, 512 << 10, None)?);
        assert!(limiter.memory_growing(0, 256 << 10, None)?);
        assert!(limiter.table_growing(0, (256 << 10) / TABLE_ELEMENT, None)?);
        assert!(!limiter.refused());
        assert!(!limiter.table_growing(0, 1, None)?);
        assert!(limiter.refused());
        assert_eq!(limiter.peak(), 1 << 20);
        Ok(())
    }
}
