//! The socket that the broker listens on: handed down by systemd (sd_listen_fds(3)), or made
//! here. Refuses more sockets than the one, another name than its own, and what is no
//! listening unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};

/// `FileDescriptorName=` of the socket unit.
pub const NAME: &str = "viworks-broker";

/// A listening socket, and whether it outlives this process.
#[derive(Debug)]
pub struct Listening {
    pub socket: UnixListener,
    /// Whoever connects after this process has ended starts the next.
    pub handed_down: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{0} sockets were handed down, where one is taken")]
    Count(usize),
    #[error("the socket that was handed down is named {0:?}, not {NAME}")]
    Name(String),
    #[error("what was handed down is no listening unix socket")]
    Kind(#[source] io::Error),
    #[error("{} can't be listened on", .0.display())]
    Bind(PathBuf, #[source] io::Error),
    #[error("no socket was handed down, and none is named: --socket PATH, or start the socket unit")]
    None,
}

/// The one socket: handed down, or at `path`.
///
/// # Errors
/// When there is none, or not the right one.
pub fn listen(path: Option<&Path>) -> Result<Listening, SocketError> {
    // What `LISTEN_PID` names another process for is not ours.
    let mut handed = ListenFd::from_env();
    match (handed.len(), path) {
        (0, None) => Err(SocketError::None),
        (0, Some(path)) => bind(path).map_err(|e| SocketError::Bind(path.to_owned(), e)),
        (1, _) => {
            let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
            if names != NAME {
                return Err(SocketError::Name(names.chars().take(64).collect()));
            }
            let taken = handed.take_unix_listener(0).map_err(SocketError::Kind)?;
            let socket = taken.ok_or(SocketError::Count(0))?;
            // No program that is started here has any use for it.
            fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|e| SocketError::Kind(e.into()))?;
            Ok(Listening { socket, handed_down: true })
        }
        (count, _) => Err(SocketError::Count(count)),
    }
}

fn bind(path: &Path) -> io::Result<Listening> {
    match std::fs::symlink_metadata(path) {
        // Of a broker that was killed; one that lives answers.
        Ok(there) if there.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::other("exists and is not a socket")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let socket = UnixListener::bind(path)?;
    // Who connects is asked for the uid; the mode decides nothing.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(Listening { socket, handed_down: false })
}
