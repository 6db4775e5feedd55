//! OpenVPN's management socket, as far as ending a user's sessions needs it. Refuses
//! endless answers and sockets that are not this host's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::super::name::PeerName;

/// Where the server listens: `unix:/path`, `127.0.0.1:7505`, or `off` where the owner
/// accepts that a removed user's session lives until it is renegotiated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Management {
    Off,
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl TryFrom<String> for Management {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:").filter(|p| p.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            _ => Err("management is unix:/path, a loopback address with a port, or off"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ManagementError {
    #[error("the management socket can't be reached")]
    Connect(#[source] std::io::Error),
    #[error("the management socket broke off")]
    Broken(#[source] std::io::Error),
    #[error("the management socket did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the management socket wants a password: set management_password_file")]
    PasswordWanted,
    #[error("the management socket refused: {0}")]
    Refused(String),
    #[error("the management socket talks without end")]
    Endless,
}

/// For everything: only one client is served at a time, so another one may be in the way.
const DEADLINE: Duration = Duration::from_secs(5);
const MAX_LINE: usize = 4 * 1024;
const MAX_ANSWER: usize = 256 * 1024;
const PROMPT: &[u8] = b"ENTER PASSWORD:";

impl Management {
    /// Whether it needs no network, not even the loopback.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// End the sessions of the user with that common name; how many there were.
    pub(super) async fn kill(&self, name: &PeerName, password: Option<&[u8]>) -> Result<u32, ManagementError> {
        self.kill_within(DEADLINE, name, password).await
    }

    async fn kill_within(
        &self,
        deadline: Duration,
        name: &PeerName,
        password: Option<&[u8]>,
    ) -> Result<u32, ManagementError> {
        let talk = async {
            match self {
                Self::Off => Ok(0),
                Self::Unix(path) => {
                    kill(UnixStream::connect(path).await.map_err(ManagementError::Connect)?, name, password).await
                }
                Self::Tcp(address) => {
                    kill(TcpStream::connect(address).await.map_err(ManagementError::Connect)?, name, password).await
                }
            }
        };
        tokio::time::timeout(deadline, talk).await.map_err(|_| ManagementError::Silent(deadline))?
    }
}

async fn kill(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    name: &PeerName,
    password: Option<&[u8]>,
) -> Result<u32, ManagementError> {
    let mut lines = Lines { buffer: Vec::new(), taken: 0 };
    // The greeting comes first; a command sent before it would be taken for the password.
    loop {
        let line = lines.next(&mut stream, true).await?;
        if line == PROMPT {
            let password = password.ok_or(ManagementError::PasswordWanted)?;
            let answer = Zeroizing::new([password.trim_ascii(), b"\n"].concat());
            stream.write_all(&answer).await.map_err(ManagementError::Broken)?;
        } else if line.starts_with(b"ERROR:") {
            return Err(ManagementError::Refused(text(&line)));
        } else if line.starts_with(b">INFO:") {
            break;
        }
    }
    stream.write_all(format!("kill {name}\n").as_bytes()).await.map_err(ManagementError::Broken)?;
    let killed = loop {
        let line = text(&lines.next(&mut stream, false).await?);
        if let Some(said) = line.strip_prefix("SUCCESS:") {
            // "common name 'NAME' found, N client(s) killed"
            let count = said.rsplit(", ").next().and_then(|t| t.split(' ').next()).and_then(|n| n.parse().ok());
            break count.ok_or(ManagementError::Refused(line))?;
        }
        if line.starts_with("ERROR:") {
            if line.contains("not found") {
                break 0;
            }
            return Err(ManagementError::Refused(line));
        }
    };
    // It is done: whether the goodbye arrives doesn't matter.
    let _ = stream.write_all(b"quit\n").await;
    Ok(killed)
}

struct Lines {
    buffer: Vec<u8>,
    taken: usize,
}

impl Lines {
    /// The next line without its end, or the password prompt, which has none.
    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin), prompt: bool) -> Result<Vec<u8>, ManagementError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(line.trim_ascii_end().to_vec());
            }
            if prompt && self.buffer == PROMPT {
                return Ok(std::mem::take(&mut self.buffer));
            }
            if self.buffer.len() > MAX_LINE || self.taken > MAX_ANSWER {
                return Err(ManagementError::Endless);
            }
            match stream.read_buf(&mut self.buffer).await.map_err(ManagementError::Broken)? {
                0 => return Err(ManagementError::Broken(std::io::ErrorKind::UnexpectedEof.into())),
                n => self.taken += n,
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PeerName {
        PeerName::try_from("road-1".to_owned()).unwrap()
    }

    /// Says `greeting`, answers each line by the next of `answers`, and tells what it read.
    async fn server(
        greeting: &str,
        answers: &[&str],
        password: Option<&[u8]>,
    ) -> (Result<u32, ManagementError>, String) {
        let (client, mut server) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut read = Vec::new();
            let _ = server.write_all(greeting.as_bytes()).await;
            for answer in answers {
                let before = read.len();
                while !read[before..].contains(&b'\n') && server.read_buf(&mut read).await.unwrap_or(0) > 0 {}
                let _ = server.write_all(answer.as_bytes()).await;
            }
            drop(server);
            String::from_utf8_lossy(&read).into_owned()
        };
        let name = name();
        tokio::join!(kill(client, &name, password), serve)
    }

    const INFO: &str = ">INFO:OpenVPN Management Interface Version 5\r\n";

    #[tokio::test]
    async fn counts_the_sessions_it_ended() {
        let (killed, said) =
            server(INFO, &[">LOG:x\r\nSUCCESS: common name 'road-1' found, 2 client(s) killed\r\n"], None).await;
        assert_eq!((killed.unwrap(), said.as_str()), (2, "kill road-1\n"));
        let (killed, _) = server(INFO, &["ERROR: common name 'road-1' not found\r\n"], None).await;
        assert_eq!(killed.unwrap(), 0);
    }

    #[tokio::test]
    async fn gives_the_password_only_when_asked() {
        let greeted = format!("SUCCESS: password is correct\r\n{INFO}");
        let answers = [greeted.as_str(), "SUCCESS: common name 'road-1' found, 1 client(s) killed\r\n"];
        let (killed, said) = server("ENTER PASSWORD:", &answers, Some(b"s3cret\n")).await;
        assert_eq!((killed.unwrap(), said.as_str()), (1, "s3cret\nkill road-1\n"));
        let (killed, said) = server("ENTER PASSWORD:", &["ERROR: bad password\r\n"], Some(b"no")).await;
        assert!(matches!(killed, Err(ManagementError::Refused(_))), "{said}");
        assert!(matches!(server("ENTER PASSWORD:", &[], None).await.0, Err(ManagementError::PasswordWanted)));
    }

    #[tokio::test]
    async fn broken_and_endless_answers_end() {
        assert!(matches!(server(INFO, &["SUCCESS: what\r\n"], None).await.0, Err(ManagementError::Refused(_))));
        assert!(matches!(
            server(INFO, &["ERROR: unknown command\r\n"], None).await.0,
            Err(ManagementError::Refused(_))
        ));
        assert!(matches!(server(INFO, &[""], None).await.0, Err(ManagementError::Broken(_))));
        let long = "x".repeat(MAX_LINE + 1);
        assert!(matches!(server(&long, &[], None).await.0, Err(ManagementError::Endless)));
        let chatter = ">LOG:x\r\n".repeat(MAX_ANSWER / 8 + 10_000);
        assert!(matches!(server(&chatter, &[], None).await.0, Err(ManagementError::Endless)));
    }

    #[tokio::test]
    async fn a_silent_socket_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let silent = Management::Unix(path).kill_within(Duration::from_millis(50), &name(), None).await;
        assert!(matches!(silent, Err(ManagementError::Silent(_))));
        let nobody = Management::Unix(dir.path().join("none")).kill(&name(), None).await;
        assert!(matches!(nobody, Err(ManagementError::Connect(_))));
    }

    #[test]
    fn only_sockets_of_this_host() {
        for good in ["off", "unix:/run/o.sock", "127.0.0.1:7505", "[::1]:7505"] {
            assert!(Management::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "unix:run", "192.0.2.1:7505", "0.0.0.0:1", "localhost:1", "/run/o.sock"] {
            assert!(Management::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
