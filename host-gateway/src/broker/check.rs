//! What `check`, and a gateway that starts, say of the broker: that none listens, that it
//! takes no requests of this user, that it speaks another protocol, or that it judges by
//! another policy than this gateway.

use super::client::{AskError, Client};
use crate::config::{Config, Faults, digest_of};
use crate::failure::chain;

/// Every fault of the broker that this configuration names; none where it names none.
pub async fn faults(config: &Config) -> Faults {
    let mut faults = Faults::default();
    let Some(socket) = &config.broker else { return faults };
    let hello = match Client::new(socket).hello().await {
        Ok(hello) => hello,
        Err(error) => {
            let mend = match error {
                AskError::Stranger => "set broker_user to the user that the gateway runs as",
                AskError::Version { .. } => "install gateway and broker of the same release, and restart both",
                _ => "start viworks-broker.socket, or name the socket that it listens on",
            };
            faults.add("broker", socket.display(), chain(&error), mend);
            return faults;
        }
    };
    match hello.policy {
        Err(broken) => {
            let mend = "correct it: until then the broker lets nothing happen";
            faults.add("broker", socket.display(), format!("its policy is refused: {}", broken.trim()), mend);
        }
        Ok(digest) if digest != digest_of(config.policy_file.path()) => {
            let problem = "judges by another policy than this gateway";
            faults.add("broker", socket.display(), problem, "let both read the same gateway.toml and policy file");
        }
        Ok(_) => {}
    }
    faults
}
