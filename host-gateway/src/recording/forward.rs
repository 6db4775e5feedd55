//! Between guests and capabilities: every host function passes here once. Notes which
//! capability was used and which rule refused, for the receipt; puts call and answer on the
//! tape, or answers from it. Knows no capability's meaning.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wasmtime::component::HasData;

use super::tape::TapeHandle;
use crate::capabilities::Call;
use crate::capabilities::wit::viworks::gateway as g;
use g::types::Failure;

/// What linkers are given instead of the call itself.
#[derive(Debug)]
pub struct Forward<'c>(&'c mut Call);

/// The kind of [`Forward`], for linkers.
#[derive(Debug)]
pub struct Forwarding;

impl HasData for Forwarding {
    type Data<'a> = Forward<'a>;
}

/// Stand before a call.
pub fn forward(call: &mut Call) -> Forward<'_> {
    Forward(call)
}

impl Forward<'_> {
    fn tape(&self) -> Option<TapeHandle> {
        self.0.recorder.tape().cloned()
    }

    /// The answer that the tape has for this call, if it is being played.
    fn recorded<T: DeserializeOwned>(tape: &TapeHandle, call: &str, args: &[Value]) -> Option<wasmtime::Result<T>> {
        let answer = tape.play(call, args)?;
        Some(answer.and_then(|answer| Ok(serde_json::from_value(answer)?)))
    }

    fn note(&self, capability: &str, refused: Option<&str>) {
        match refused {
            None => self.0.recorder.uses().granted(capability),
            Some(rule) => self.0.recorder.uses().denied(rule),
        }
    }
}

/// Which rule refused, if one did; `None` also for answers that can't be refusals.
trait Answer {
    fn refused(&self) -> Option<&str>;
}

impl<T> Answer for Result<T, Failure> {
    fn refused(&self) -> Option<&str> {
        match self {
            Err(Failure::Denied(denial)) => Some(&denial.rule),
            _ => None,
        }
    }
}

impl Answer for () {
    fn refused(&self) -> Option<&str> {
        None
    }
}

impl Answer for g::invocation::Context {
    fn refused(&self) -> Option<&str> {
        None
    }
}

fn value(argument: &impl Serialize) -> Value {
    serde_json::to_value(argument).unwrap_or_default()
}

/// One interface: its name, its trait, and its functions as the trait has them.
macro_rules! forward {
    ($capability:literal, $host:path { $(fn $name:ident($($arg:ident: $ty:ty),*) -> $answer:ty;)* }) => {
        impl $host for Forward<'_> {
            $(async fn $name(&mut self, $($arg: $ty),*) -> wasmtime::Result<$answer> {
                const CALL: &str = concat!($capability, ".", stringify!($name));
                let tape = self.tape();
                let args = match &tape {
                    Some(_) => vec![$(value(&$arg)),*],
                    None => Vec::new(),
                };
                if let Some(answer) = tape.as_ref().and_then(|tape| Self::recorded(tape, CALL, &args)) {
                    return answer;
                }
                let before = self.0.recorder.made();
                let began = self.0.recorder.timings().start();
                let answer = <Call as $host>::$name(self.0, $($arg),*).await;
                let refused = answer.as_ref().map_or(true, |answer| answer.refused().is_some());
                self.0.recorder.timings().end(CALL, began, refused);
                if let Ok(answer) = &answer {
                    self.note($capability, answer.refused());
                }
                if let Some(tape) = &tape {
                    let effects = self.0.recorder.made() - before;
                    tape.record(CALL, args, answer.as_ref().map(value), u32::try_from(effects).unwrap_or(u32::MAX));
                }
                answer
            })*
        }
    };
}

forward!("accounts", g::accounts::Host {
    fn create(account: g::accounts::NewAccount) -> Result<g::accounts::Account, Failure>;
    fn remove(name: String, home: g::accounts::HomeFate) -> Result<g::accounts::Account, Failure>;
    fn lock(name: String) -> Result<g::accounts::Account, Failure>;
    fn unlock(name: String) -> Result<g::accounts::Account, Failure>;
    fn set_groups(name: String, groups: Vec<String>) -> Result<g::accounts::Account, Failure>;
    fn set_ssh_keys(name: String, ssh_keys: Vec<String>) -> Result<g::accounts::Account, Failure>;
    fn find(name: String) -> Result<Option<g::accounts::Account>, Failure>;
    fn list() -> Result<Vec<g::accounts::Account>, Failure>;
});

forward!("vpn", g::vpn::Host {
    fn providers() -> Result<Vec<g::vpn::Provider>, Failure>;
    fn add_peer(name: String, provider: Option<g::vpn::Provider>) -> Result<g::vpn::Credentials, Failure>;
    fn remove_peer(name: String, provider: Option<g::vpn::Provider>) -> Result<g::vpn::Peer, Failure>;
    fn list_peers() -> Result<Vec<g::vpn::Peer>, Failure>;
});

forward!("containers", g::containers::Host {
    fn get_engine() -> Result<g::containers::Engine, Failure>;
    fn list(filter: g::containers::Filter) -> Result<Vec<g::containers::Container>, Failure>;
    fn stop(id: String, grace_secs: u32) -> Result<g::containers::Container, Failure>;
    fn remove(id: String) -> Result<g::containers::Container, Failure>;
    fn prune(filter: g::containers::Filter) -> Result<Vec<g::containers::Container>, Failure>;
});

forward!("system", g::system::Host {
    fn get_host() -> Result<g::system::HostInfo, Failure>;
    fn get_cpu() -> Result<g::system::Cpu, Failure>;
    fn get_memory() -> Result<g::system::Memory, Failure>;
    fn get_disks() -> Result<Vec<g::system::Disk>, Failure>;
    fn get_load() -> Result<g::system::LoadAverage, Failure>;
    fn get_network() -> Result<Vec<g::system::Network>, Failure>;
    fn get_services(names: Vec<String>) -> Result<Vec<g::system::Service>, Failure>;
});

forward!("scripts", g::scripts::Host {
    fn list() -> Result<Vec<g::scripts::Script>, Failure>;
    fn run(name: String, args: Vec<String>) -> Result<g::scripts::Output, Failure>;
    fn run_with_secrets(
        name: String,
        args: Vec<String>,
        secrets: Vec<g::scripts::SecretVariable>
    ) -> Result<g::scripts::Output, Failure>;
});

forward!("state", g::state::Host {
    fn get(key: String) -> Result<Option<String>, Failure>;
    fn set(key: String, value: String) -> Result<(), Failure>;
    fn delete(key: String) -> Result<(), Failure>;
    fn keys() -> Result<Vec<String>, Failure>;
});

forward!("secrets", g::secrets::Host {
    fn open(name: String) -> Result<String, Failure>;
});

forward!("invocation", g::invocation::Host {
    fn get_context() -> g::invocation::Context;
});

forward!("log", g::log::Host {
    fn write(level: g::log::Level, message: String) -> ();
});

forward!("progress", g::progress::Host {
    fn report(done: u32, total: Option<u32>, message: String) -> ();
});

impl g::types::Host for Forward<'_> {}
