//! What the end-to-end tests, the fleet simulator and the benchmarks share: a throwaway
//! PKI and simulated gateways.

pub mod fleet;
pub mod pki;
