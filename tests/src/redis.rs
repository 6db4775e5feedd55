//! A Redis server of the test's own, on a socket in a folder of its own, with no port and
//! nothing on disk. It ends with the process that started it, however that ends: a shell
//! waits at a pipe for that.

use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// Waits for the end of whoever started it.
const KEEPER: &str = r#"
"$@" </dev/null >/dev/null 2>&1 &
server=$!
read -r word
kill -CONT $server; kill -KILL $server; wait $server
"#;

/// A running server, or one that was stopped and can be started again.
#[derive(Debug)]
pub struct Server {
    dir: tempfile::TempDir,
    keeper: Mutex<Option<Child>>,
}

impl Server {
    /// # Errors
    /// When Redis is not installed or does not come up.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("viw-redis-").tempdir_in("/tmp")?;
        let server = Self { dir, keeper: Mutex::new(None) };
        server.start_again()?;
        Ok(server)
    }

    /// Start it again after [`Self::stop`]; what it knew is gone.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&self) -> Result<()> {
        let mut keeper = self.keeper.lock().map_err(|_| Error::other("a thread panicked"))?;
        // Of the run before: it would look as if it were up.
        let _ = fs::remove_file(self.socket());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "keeper", "redis-server", "--port", "0", "--unixsocket"]).arg(self.socket());
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(self.dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        *keeper = Some(command.spawn()?);
        drop(keeper);
        let until = Instant::now() + SOON;
        while self.cli(&["PING"]).ok().is_none_or(|answer| answer.trim() != "PONG") {
            if Instant::now() > until {
                return Err(Error::other("Redis does not come up"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// End it at once: its clients' connections break.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        let mut keeper = self.keeper.lock().map_err(|_| Error::other("a thread panicked"))?;
        let mut child = keeper.take().ok_or_else(|| Error::other("it does not run"))?;
        drop(child.stdin.take());
        child.wait().map(drop)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// For `redis_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What `redis-cli` prints.
    ///
    /// # Errors
    /// With what it said.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli").arg("-s").arg(self.socket()).args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(Error::other(text)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped before.
        let _ = self.stop();
    }
}
