//! States of systemd's units, by one `systemctl show`. Refuses names that could be options
//! or patterns; where there is no systemd every state is `unknown`.

use std::path::Path;
use std::time::Duration;

use super::super::wit::viworks::gateway::system as wit;
use crate::failure::Failure;
use crate::process::{Program, first_existing};

const DEADLINE: Duration = Duration::from_secs(5);
pub(super) const MAX_NAMES: usize = 64;

/// A unit's name (systemd.unit(5)), without what systemctl takes for a pattern.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@_.:-\\".contains(&b);
    if !name.is_empty() && name.len() <= 128 && !name.starts_with('-') && name.bytes().all(plain) {
        Ok(())
    } else {
        let shown: String = name.chars().take(40).collect();
        Err(Failure::InvalidArgument(format!("{shown:?} is not a unit's name")))
    }
}

/// The states of these units, in the order asked. The names were checked.
pub(super) async fn states(names: &[String]) -> Result<Vec<wit::Service>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(names.iter().map(|name| unknown(name)).collect());
    }
    let systemctl = Program::new(first_existing(&["/usr/bin/systemctl", "/bin/systemctl"]))
        .args(["show", "--property=ActiveState,SubState", "--"])
        .args(names.iter().map(|name| unit(name)))
        .deadline(DEADLINE);
    let output = systemctl.run().await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    if output.code() != 0 {
        return Err(Failure::Unavailable(format!("systemctl show: {}", output.complaint())));
    }
    parse(names, &String::from_utf8_lossy(&output.stdout))
}

fn unit(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

fn unknown(name: &str) -> wit::Service {
    wit::Service { name: name.to_owned(), active_state: "unknown".into(), sub_state: "unknown".into() }
}

/// One block of `Key=value` lines a unit, in the order asked, an empty line between.
fn parse(names: &[String], text: &str) -> Result<Vec<wit::Service>, Failure> {
    let blocks: Vec<&str> = text.split("\n\n").filter(|b| !b.trim().is_empty()).collect();
    if blocks.len() != names.len() {
        return Err(Failure::Failed(format!("systemctl answered for {} of {} units", blocks.len(), names.len())));
    }
    let value = |block: &str, key: &str| {
        let found = block.lines().find_map(|l| l.strip_prefix(key).and_then(|l| l.strip_prefix('=')));
        found.filter(|v| !v.is_empty()).unwrap_or("unknown").to_owned()
    };
    let states = names.iter().zip(blocks).map(|(name, block)| wit::Service {
        name: name.clone(),
        active_state: value(block, "ActiveState"),
        sub_state: value(block, "SubState"),
    });
    Ok(states.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for good in ["ssh", "ssh.service", "getty@tty1.service", "dev-sda\\x2d1.device"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "-H", "--host=x", "a b", "*", "a?", "[a]", "a;b", "a/b", "a\n", &"x".repeat(129)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn answers_are_matched_by_order() {
        let names = ["ssh".to_owned(), "none".to_owned()];
        let text = "ActiveState=active\nSubState=running\n\nActiveState=inactive\nSubState=dead\n";
        let states = parse(&names, text).unwrap();
        assert_eq!((states[0].name.as_str(), states[0].active_state.as_str()), ("ssh", "active"));
        assert_eq!((states[1].active_state.as_str(), states[1].sub_state.as_str()), ("inactive", "dead"));
        assert!(parse(&names, "ActiveState=active\n").is_err());
    }

    #[tokio::test]
    async fn without_systemd_they_are_unknown() {
        if !Path::new("/run/systemd/system").is_dir() {
            let states = states(&["ssh".to_owned()]).await.unwrap();
            assert_eq!(states[0].active_state, "unknown");
        }
    }
}
