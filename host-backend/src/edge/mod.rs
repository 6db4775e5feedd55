//! What stands between the network and the two ports: who the peer really is, and whether
//! it may take up time now. Believes nothing about a peer but what a trusted proxy says.
//!
//! - [`nets`]: the proxies that are trusted
//! - [`proxy`]: the PROXY protocol, in front of TLS and HTTP
//! - [`forwarded`]: `X-Forwarded-For`, of proxies that speak HTTP
//! - [`certificate`]: a client certificate that a proxy passes on in a header
//! - [`addresses`]: how much one address may ask for
//! - [`admission`]: how many handshakes there are at once, and who waits

pub mod addresses;
pub mod admission;
pub mod certificate;
pub mod forwarded;
pub mod nets;
pub mod proxy;

pub use addresses::{Addresses, Limits, TooMuch};
pub use admission::{Admission, Full};
pub use nets::Nets;
