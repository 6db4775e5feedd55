//! End to end: the real programs, real services, and what users would do with them.
//! One file a story; each test has a cluster of its own.

mod approvals;
mod backup;
mod brokered;
mod contract;
mod crash;
mod delivery;
mod demo;
mod engine;
mod full;
mod health;
mod hostile;
mod hot_load;
mod identity;
mod journey;
mod logs;
mod nginx;
mod observed;
mod openvpn;
mod operator;
mod packages;
mod people;
mod plan;
mod plugins;
mod postgresql;
mod receipts;
mod recovery;
mod replay;
mod rollouts;
mod runbooks;
mod several;
mod shadow;
mod simulated;
mod undo;
mod wireguard;

/// What every test gives.
type Result = std::io::Result<()>;
