//! Record and replay: every host call of an invocation with its answer, its clocks and its
//! random bytes, so that a developer can run it again elsewhere and see where another
//! version of the plugin departs. Refuses to keep secrets: they are replaced before
//! anything is written.
//!
//! - [`forward`]: stands between guests and capabilities; also notes what receipts say
//! - [`tape`]: one invocation's events, recorded or played back
//! - [`redact`]: which texts are secret, and what stands for them
//! - [`file`]: the format, JSON lines
//! - [`store`]: the host's recordings, bounded
//! - [`replay`]: run a recording against a component, and compare

pub mod file;
mod forward;
mod redact;
pub mod replay;
mod store;
mod tape;
mod wasi;

pub use forward::{Forward, Forwarding, forward};
pub use store::{Config, Recordings};
pub use tape::{Departure, Tape, TapeHandle};
pub(crate) use wasi::attach;
