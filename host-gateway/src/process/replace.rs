//! Becoming another program, and leaving one beside it: how one version of the gateway starts
//! another. The environment and open standard streams stay; nothing is waited for. Refuses
//! relative paths.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Become `program`. Returns only if that failed, and why.
pub fn become_program(
    program: &Path,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (&'static str, OsString)>,
) -> io::Error {
    if !program.is_absolute() {
        return io::Error::other("not an absolute path");
    }
    Command::new(program).args(args).envs(env).exec()
}

/// Start `program` as a child that nobody waits for: it outlives what this process becomes, and
/// ends by itself.
///
/// # Errors
/// When it can't be started.
pub fn beside<'a>(program: &Path, args: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    if !program.is_absolute() {
        return Err(io::Error::other("not an absolute path"));
    }
    Command::new(program).args(args).stdin(Stdio::null()).spawn().map(drop)
}
