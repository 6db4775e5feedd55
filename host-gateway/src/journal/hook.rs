//! Where tests end the gateway: at the `n`th passing of a named point of the journal, by
//! SIGKILL, as the file that `VIWORKS_TEST_KILL_FILE` names says (`after-commit 3`; counted
//! since the file says so). Compiled into debug builds alone: a release build has neither
//! the points nor the variable.

#[cfg(not(debug_assertions))]
pub(super) fn reached(_: &str) {}

#[cfg(debug_assertions)]
pub(super) fn reached(point: &str) {
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex};

    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("VIWORKS_TEST_KILL_FILE").map(PathBuf::from));
    /// What the file said last, and passings since then.
    static SEEN: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

    let Some(order) = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) else { return };
    let Some((wanted, passing)) = order.trim().split_once(' ') else { return };
    let Ok(mut seen) = SEEN.lock() else { return };
    if seen.0 != order {
        *seen = (order.clone(), 0);
    }
    if wanted == point {
        seen.1 += 1;
        if passing.parse() == Ok(seen.1) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
