//! The one room where this gateway runs programs: an argument vector, a clean environment,
//! a deadline, an output cap, a process group of its own that is killed whatever way the
//! run ends. Refuses shells, relative program paths and inherited anything, but for the lock
//! that tells the next gateway that it still runs ([`orphans`]).

pub mod orphans;
pub mod replace;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::unix::pipe;

/// What a program finds in `PATH`, whatever the gateway was started with.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const DEFAULT_OUTPUT_CAP: usize = 64 * 1024;
/// How long the pipes may stay open after the program has ended: only something that left
/// the process group can hold them.
const LINGER: Duration = Duration::from_millis(500);
/// How long a killed program may take to be gone, before a thread waits for it instead.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A program to run once.
#[derive(Debug, Clone)]
#[must_use]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    deadline: Duration,
    output_cap: usize,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    /// At most the output cap.
    pub stdout: Vec<u8>,
    /// At most the output cap.
    pub stderr: Vec<u8>,
    /// Whether something of either was dropped.
    pub truncated: bool,
    pub took: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{} is not an absolute path", .0.display())]
    RelativePath(PathBuf),
    #[error("{} could not be started", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("{} was killed after {} ms", program.display(), after.as_millis())]
    TimedOut { program: PathBuf, after: Duration },
    #[error("{} could not be waited for", program.display())]
    Wait { program: PathBuf, source: std::io::Error },
}

impl Output {
    /// The exit code; 128 plus the signal's number, as shells say it, if a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// The last line of stderr that says something, bounded: for error texts.
    #[must_use]
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        line.trim().chars().filter(|c| !c.is_control()).take(300).collect()
    }
}

impl Program {
    /// `path` is absolute: nothing is searched for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: vec![("PATH".into(), PATH.into()), ("LANG".into(), "C.UTF-8".into())],
            input: None,
            deadline: DEFAULT_DEADLINE,
            output_cap: DEFAULT_OUTPUT_CAP,
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more variable beside `PATH` and `LANG`.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What it reads on stdin; `/dev/null` otherwise. Held in memory, so keep it small.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Bytes kept of stdout, and of stderr. The rest is read and dropped, so that a
    /// talkative program does not hang.
    pub fn output_cap(mut self, bytes: usize) -> Self {
        self.output_cap = bytes;
        self
    }

    /// Run it to its end. A non-zero exit is an output, not an error. When it ends, and
    /// when this future is dropped, everything left in its process group is killed.
    ///
    /// # Errors
    /// If it can't be started or waited for, or missed its deadline (it is dead then).
    pub async fn run(self) -> Result<Output, ProcessError> {
        if !self.path.is_absolute() {
            return Err(ProcessError::RelativePath(self.path));
        }
        let started = Instant::now();
        let wait_error = |source| ProcessError::Wait { program: self.path.clone(), source };
        let mut running = self.start().map_err(|source| ProcessError::Start { program: self.path.clone(), source })?;
        let (mut stdout, mut stderr) = (Captured::new(self.output_cap), Captured::new(self.output_cap));
        let (out, err) = running.pipes().map_err(wait_error)?;

        let drained = {
            let drain = async { tokio::join!(stdout.drain(out), stderr.drain(err)) };
            tokio::pin!(drain);
            let mut drained = false;
            let exited = tokio::time::timeout(self.deadline, async {
                loop {
                    tokio::select! {
                        biased;
                        exited = running.exited() => return exited,
                        _ = &mut drain, if !drained => drained = true,
                    }
                }
            });
            let Ok(exited) = exited.await else {
                running.kill();
                // Gone before we say so: whoever holds a lock for it may let go then.
                let _ = tokio::time::timeout(KILL_GRACE, running.exited()).await;
                return Err(ProcessError::TimedOut { program: self.path, after: self.deadline });
            };
            exited.map_err(wait_error)?;
            running.kill();
            drained || tokio::time::timeout(LINGER, drain).await.is_ok()
        };
        let status = running.reap().map_err(wait_error)?;
        Ok(Output {
            status,
            truncated: stdout.truncated || stderr.truncated || !drained,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            took: started.elapsed(),
        })
    }

    fn start(&self) -> std::io::Result<Running> {
        let stdin = match &self.input {
            None => Stdio::null(),
            // A memory file, not a pipe: nobody has to write while it reads.
            Some(bytes) => {
                let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
                file.write_all(bytes)?;
                file.seek(SeekFrom::Start(0))?;
                Stdio::from(file)
            }
        };
        let child = Command::new(&self.path)
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Running::new(child)
    }
}

/// A child that is not reaped yet, so that its id, which is also its group's, stays its own.
#[derive(Debug)]
struct Running {
    /// `None` once reaped.
    child: Option<Child>,
    group: Pid,
    exit: Option<AsyncFd<OwnedFd>>,
}

impl Running {
    fn new(child: Child) -> std::io::Result<Self> {
        let group = Pid::from_child(&child);
        // From here on the child is killed if anything fails.
        let mut running = Self { child: Some(child), group, exit: None };
        // Readable at exit, without reaping: what is left of the group can be killed
        // while the zombie still keeps the group's number from being given away.
        let pidfd = pidfd_open(group, PidfdFlags::empty())?;
        #[allow(deprecated, reason = "its replacement is unsafe; an OwnedFd keeps the promise that is asked for there")]
        let exit = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        running.exit = Some(exit);
        Ok(running)
    }

    fn pipes(&mut self) -> std::io::Result<(Option<pipe::Receiver>, Option<pipe::Receiver>)> {
        let Some(child) = &mut self.child else { return Ok((None, None)) };
        let out = child.stdout.take().map(|p| pipe::Receiver::from_owned_fd(p.into())).transpose()?;
        let err = child.stderr.take().map(|p| pipe::Receiver::from_owned_fd(p.into())).transpose()?;
        Ok((out, err))
    }

    async fn exited(&self) -> std::io::Result<()> {
        match &self.exit {
            Some(exit) => exit.readable().await.map(|_| ()),
            None => Ok(()),
        }
    }

    fn kill(&self) {
        if self.child.is_some() {
            // Fails only if nothing is left.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }

    fn reap(&mut self) -> std::io::Result<ExitStatus> {
        match self.child.take() {
            Some(mut child) => child.wait(),
            None => Err(std::io::Error::other("reaped already")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // Killed but not gone yet: waited for elsewhere, so that no zombie stays.
            let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || child.wait());
        }
    }
}

#[derive(Debug)]
struct Captured {
    bytes: Vec<u8>,
    cap: usize,
    truncated: bool,
}

impl Captured {
    fn new(cap: usize) -> Self {
        Self { bytes: Vec::new(), cap, truncated: false }
    }

    /// Read to the end; keep what fits. A pipe that fails is a pipe that ended.
    async fn drain(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0_u8; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
            let room = self.cap.saturating_sub(self.bytes.len()).min(n);
            self.bytes.extend_from_slice(&chunk[..room]);
            self.truncated |= room < n;
        }
    }
}

/// The first of these that exists: programs are in different places on different systems.
#[must_use]
pub fn first_existing(paths: &[&str]) -> PathBuf {
    let fallback = paths.first().copied().unwrap_or("/nonexistent");
    paths.iter().find(|p| Path::new(p).exists()).map_or_else(|| PathBuf::from(fallback), PathBuf::from)
}

#[cfg(test)]
mod tests;
