//! The broker: a small root process that does to the host what an unprivileged gateway may
//! have done. It takes typed effects and a few typed reads over a unix socket, from one uid,
//! and judges every one by the host owner's policy, which it reads itself. Refuses whatever
//! it does not know, and has no network.
//!
//! The gateway's side: [`client`] asks. The root side: `config::BrokerConfig` reads files of root's
//! → [`lockdown`] gives away what is never needed → [`activation`] finds the socket →
//! [`serve`] lets the gateway's uid in → [`handle`] judges each request ([`judge`]), and lets
//! the providers do it. [`wire`] is what both speak; [`seal`] keeps hashes on the root side.

pub mod activation;
pub mod check;
pub mod client;
pub(crate) mod handle;
pub(crate) mod judge;
pub mod lockdown;
mod run;
pub(crate) mod seal;
pub(crate) mod serve;
#[cfg(test)]
mod tests;
pub mod wire;

pub use client::Client;
pub use run::{BrokerArgs, run};
