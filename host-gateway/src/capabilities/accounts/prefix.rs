//! Makes a directory ready to stand for a host's `/`: the account files that useradd wants,
//! where they are missing. Never touches a file that is there, nor the real host.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::failure::Failure;

/// Name, mode, text. The groups are the ones that demonstrations put accounts in.
const FILES: [(&str, u32, &str); 5] = [
    ("passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("shadow", 0o600, "root:*:20000:0:99999:7:::\n"),
    ("group", 0o644, "root:x:0:\nusers:x:100:\nstaff:x:50:\ndocker:x:900:\ndevelopers:x:901:\n"),
    ("gshadow", 0o600, "root:*::\nusers:!::\nstaff:!::\ndocker:!::\ndevelopers:!::\n"),
    (
        "login.defs",
        0o644,
        "UID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\nGID_MAX 60000\nUSERGROUPS_ENAB yes\nENCRYPT_METHOD YESCRYPT\n",
    ),
];

/// # Errors
/// `unavailable` if something can't be made.
pub(super) fn prepare(root: &Path) -> Result<(), Failure> {
    let etc = root.join("etc");
    let failed = |what: &Path, e: std::io::Error| Failure::Unavailable(format!("{}: {e}", what.display()));
    DirBuilder::new().recursive(true).mode(0o755).create(&etc).map_err(|e| failed(&etc, e))?;
    for (name, mode, text) in FILES {
        let path = etc.join(name);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(|e| failed(&path, e))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&path, e)),
        }
    }
    Ok(())
}
