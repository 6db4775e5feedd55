//! What plugins may do to this host, one file a capability, all of one shape: check the
//! scope → make the effect → let the [`Recorder`](crate::effects::Recorder) journal and
//! apply it. Nothing here runs a shell or takes a path from a guest.

pub mod accounts;
mod call;
pub mod containers;
mod invocation;
mod log;
mod progress;
pub mod scripts;
pub mod secrets;
pub mod state;
pub mod system;
pub mod vpn;
mod worlds;

pub use call::{Call, Facts, HostCallLimit, Meter, Stopped};
pub use progress::Progress;
pub use worlds::{WORLDS, World, versions};

use viworks_signing::grant::Grant;
use wasmtime::component::Linker;

use self::wit::viworks::gateway as g;
use crate::recording::{Forwarding, forward};

/// The WIT of `viworks:gateway@1.0.0`, as Rust.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]
pub mod wit {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "capabilities",
        imports: { default: async | trappable },
        exports: { default: async },
        additional_derives: [serde::Serialize, serde::Deserialize],
    });
}

/// Every interface that this gateway implements, with what grants it: one line each, for
/// example `("vpn", |g| g.vpn.is_some(), |l| g::vpn::add_to_linker::<Call, Forwarding>(l, forward)),`
pub const INTERFACES: &[Interface] = &[
    ("accounts", |g| g.accounts.is_some(), |l| g::accounts::add_to_linker::<Call, Forwarding>(l, forward)),
    ("vpn", |g| g.vpn.is_some(), |l| g::vpn::add_to_linker::<Call, Forwarding>(l, forward)),
    ("containers", |g| g.containers.is_some(), |l| g::containers::add_to_linker::<Call, Forwarding>(l, forward)),
    ("system", |g| g.system.is_some(), |l| g::system::add_to_linker::<Call, Forwarding>(l, forward)),
    ("scripts", |g| g.scripts.is_some(), |l| g::scripts::add_to_linker::<Call, Forwarding>(l, forward)),
    ("state", |g| g.state.is_some(), |l| g::state::add_to_linker::<Call, Forwarding>(l, forward)),
    ("secrets", |g| g.secrets.is_some(), |l| g::secrets::add_to_linker::<Call, Forwarding>(l, forward)),
    ("types", |_| true, |l| g::types::add_to_linker::<Call, Forwarding>(l, forward)),
    ("invocation", |_| true, |l| g::invocation::add_to_linker::<Call, Forwarding>(l, forward)),
    ("log", |_| true, |l| g::log::add_to_linker::<Call, Forwarding>(l, forward)),
    ("progress", |_| true, |l| g::progress::add_to_linker::<Call, Forwarding>(l, forward)),
];

/// An interface's name, what grants it, and what adds it to a linker.
pub type Interface = (&'static str, fn(&Grant) -> bool, fn(&mut Linker<Call>) -> wasmtime::Result<()>);
