//! Where secrets come from: a directory of root's alone, then the gateway's environment.
//! Refuses a file that others could read or write, a link, and what is too long.

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Bytes, Config};
use crate::failure::Failure;

/// A longer secret is refused.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) fn find(config: &Config, name: &str) -> Result<Bytes, Failure> {
    if let Some(directory) = &config.directory
        && let Some(bytes) = in_directory(directory, name)?
    {
        return Ok(bytes);
    }
    let variable = config
        .environment_prefix
        .as_ref()
        .map(|prefix| format!("{prefix}{}", name.to_ascii_uppercase().replace(['-', '.'], "_")));
    match variable.and_then(std::env::var_os) {
        Some(value) => Ok(Bytes(Zeroizing::new(value.into_encoded_bytes()))),
        None => Err(Failure::NotFound(format!("there is no secret {name} on this host"))),
    }
}

fn in_directory(directory: &Path, name: &str) -> Result<Option<Bytes>, Failure> {
    let refuse = |what: &str| Failure::Unavailable(format!("secret {name}: {what}"));
    let me = rustix::process::geteuid().as_raw();
    let private = |meta: &std::fs::Metadata| meta.uid() == me && meta.mode() & 0o077 == 0;
    match std::fs::symlink_metadata(directory) {
        Ok(meta) if meta.is_dir() && private(&meta) => {}
        Ok(_) => return Err(refuse("its directory must be the gateway's own, with mode 0700")),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refuse(&e.to_string())),
    }
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(directory.join(name));
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refuse(&e.to_string())),
    };
    let meta = file.metadata().map_err(|e| refuse(&e.to_string()))?;
    if !meta.is_file() || !private(&meta) {
        return Err(refuse("its file must be the gateway's own, with mode 0600"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len().min(MAX_BYTES)).unwrap_or(0) + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| refuse(&e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse("it is longer than 64 KiB"));
    }
    // Editors end files with a line break that belongs to no secret.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some(Bytes(bytes)))
}
