//! Scopes and limits as TOML tables, in plugin.toml and in policies alike. Refuses unknown
//! capabilities, unknown fields and values that no gateway could act on, all at once.

use super::{AccountsScope, CAPABILITIES, ContainersScope, Scopes, ScriptsScope, SecretsScope, StateScope, VpnScope};
use crate::fault::choices;
use crate::release::Limits;
use crate::table::Table;

const PROVIDERS: [&str; 2] = ["wireguard", "openvpn"];
/// Accounts below are the system's.
const LOWEST_UID: u32 = 1_000;
/// Docker's names of states.
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// `[capabilities.NAME]`, each a scope; the table itself may be absent.
pub(crate) fn read_scopes(top: &mut Table<'_>) -> Scopes {
    let mut scopes = Scopes::default();
    if !top.has("capabilities") {
        return scopes;
    }
    top.each("capabilities", "a table [capabilities.NAME] for each capability", |name, scope| match name {
        "accounts" => scopes.accounts = checked(scope, accounts),
        "vpn" => scopes.vpn = checked(scope, vpn),
        "system" => scopes.system = scope.typed(),
        "containers" => scopes.containers = checked(scope, containers),
        "scripts" => scopes.scripts = checked(scope, scripts),
        "state" => scopes.state = checked(scope, state),
        "secrets" => scopes.secrets = checked(scope, secrets),
        _ => scope.fault("an unknown capability", &choices(CAPABILITIES)),
    });
    scopes
}

/// `[limits]`: what is absent is `default`, and nothing is above `most`.
pub(crate) fn read_limits(limits: &mut Table<'_>, default: Limits, most: Limits) -> Limits {
    limits.known(&["memory_mib", "cpu_ms", "host_calls", "output_kib", "log_kib", "instances"]);
    let mut number = |key: &str, max: u32, default: u32| limits.optional(key).number(key, 1, max).unwrap_or(default);
    Limits {
        memory_mib: number("memory_mib", most.memory_mib, default.memory_mib),
        cpu_ms: number("cpu_ms", most.cpu_ms, default.cpu_ms),
        host_calls: number("host_calls", most.host_calls, default.host_calls),
        output_kib: number("output_kib", most.output_kib, default.output_kib),
        log_kib: number("log_kib", most.log_kib, default.log_kib),
        instances: number("instances", most.instances, default.instances),
    }
}

fn checked<S: serde::de::DeserializeOwned>(table: &mut Table<'_>, check: impl Fn(&S, &mut Table<'_>)) -> Option<S> {
    let scope = table.typed();
    if let Some(scope) = &scope {
        check(scope, table);
    }
    scope
}

/// Capabilities with a function that takes handles of secrets.
const USES: [&str; 1] = ["scripts"];

fn secrets(scope: &SecretsScope, table: &mut Table<'_>) {
    for used in scope.uses.iter().filter(|used| !USES.contains(&used.as_str())) {
        table.fault_at("uses", used, choices(USES));
    }
}

fn accounts(scope: &AccountsScope, table: &mut Table<'_>) {
    let uids = scope.uids;
    if uids.min > uids.max || uids.min < LOWEST_UID {
        let found = format!("{{ min = {}, max = {} }}", uids.min, uids.max);
        table.fault_at("uids", found, format!("min from {LOWEST_UID} up, and max not below min"));
    }
    let absolute = "absolute paths without \"..\", for example \"/bin/bash\"";
    let is_absolute = |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == "..");
    each(&scope.shells, "shells", absolute, is_absolute, table);
    each(std::slice::from_ref(&scope.home_root), "home_root", absolute, is_absolute, table);
}

fn vpn(scope: &VpnScope, table: &mut Table<'_>) {
    each(&scope.providers, "providers", &choices(PROVIDERS), |name| PROVIDERS.contains(&name), table);
}

fn containers(scope: &ContainersScope, table: &mut Table<'_>) {
    each(&scope.remove_states, "remove_states", &choices(STATES), |name| STATES.contains(&name), table);
    let label = "KEY or KEY=VALUE";
    each(&scope.labels, "labels", label, |text| !text.is_empty() && !text.starts_with('='), table);
}

fn scripts(scope: &ScriptsScope, table: &mut Table<'_>) {
    for (name, pin) in &scope.pins {
        if pin.len() != 64 || !pin.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let wanted = "a SHA-256 in lowercase hex, as `sha256sum` prints it";
            table.fault_at(&format!("pins.{name}"), format!("{pin:?}"), wanted);
        }
    }
}

fn state(scope: &StateScope, table: &mut Table<'_>) {
    for (key, number) in [("max_keys", scope.max_keys), ("max_kib", scope.max_kib)] {
        if number == 0 {
            table.fault_at(key, "0", "a whole number from 1 up");
        }
    }
}

fn each(items: &[String], key: &str, wanted: &str, valid: impl Fn(&str) -> bool, table: &mut Table<'_>) {
    for item in items.iter().filter(|item| !valid(item)) {
        table.fault_at(key, format!("{item:?}"), wanted);
    }
}
