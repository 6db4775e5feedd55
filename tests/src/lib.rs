//! What the end-to-end tests, the fleet simulator and the benchmarks share: a throwaway
//! PKI, a cluster of the real programs, a client of its API, simulated gateways,
//! and the attacks that must be refused.

pub mod api;
pub mod attack;
pub mod cli;
pub mod cluster;
pub mod fleet;
pub mod gateway;
pub mod netns;
pub mod nginx;
pub mod packages;
pub mod pki;
pub mod postgres;
pub mod program;
pub mod prometheus;
pub mod receiver;
pub mod redis;
pub mod runbook;
pub mod sandbox;
