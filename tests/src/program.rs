//! Real programs, started and stopped: where they are built, a child that ends with its
//! test, and bounded waits on a state.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program of the workspace, built beside the running test or benchmark.
///
/// # Errors
/// When it is not there, with the command that builds it.
pub fn program(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::other(format!("{name} is not built: cargo build --workspace --bins")))
}

/// A component built by `make guests`: `plugins` or `tests/guests` and its crate's name.
///
/// # Errors
/// When it is not there.
pub fn component(workspace_dir: &str, krate: &str) -> Result<PathBuf> {
    let target = match workspace_dir {
        "plugins" => std::env::var_os("VIWORKS_PLUGINS_TARGET"),
        _ => std::env::var_os("VIWORKS_GUESTS_TARGET"),
    };
    let target = target.map_or_else(|| workspace().join(workspace_dir).join("target"), PathBuf::from);
    let path = target.join("wasm32-wasip2/release").join(format!("{krate}.wasm"));
    if path.is_file() { Ok(path) } else { Err(Error::other(format!("{} is missing: make guests", path.display()))) }
}

/// Run a program to its end; its output as text if it succeeded.
///
/// # Errors
/// When it can't be started or fails, with what it said.
pub fn run<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> Result<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::other(format!(
        "{} {}: {}{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A running program that is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Start `program`, both outputs appended to `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>, log: &Path) -> Result<Self> {
        Self::start_with(Command::new(program).args(args), log)
    }

    /// Start a prepared command.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_with(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status, if it ended.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGTERM, then wait for its end.
    ///
    /// # Errors
    /// When it does not end within the time.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        signal(self.pid(), "TERM")?;
        self.wait(within)
    }

    /// SIGKILL: what a power cut is to a process.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// # Errors
    /// When it does not end within the time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(Error::other(format!("still running after {within:?}; its log:\n{}", self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines that it wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().map_err(Error::other)
    }

    /// Cpu time used so far, in milliseconds; the kernel counts in hundredths of a second.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ms(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // After the name in brackets, which may hold anything: user and system time.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) * 10.0).ok_or_else(|| Error::other(stat))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut err = std::io::stderr().lock();
            let _ = std::io::Write::write_all(
                &mut err,
                format!("--- {}:\n{}\n", self.log.display(), self.log_tail()).as_bytes(),
            );
        }
    }
}

/// Send a signal by its name (`TERM`, `STOP`, …) to one process.
///
/// # Errors
/// When the process is gone.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    run(Path::new("/bin/kill"), [format!("-{name}"), pid.to_string()]).map(drop)
}

/// Wait on a state: ask every 20 ms, at most `within`.
///
/// # Errors
/// When it does not come, with what was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + within;
    loop {
        let answer = ask();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() > until {
            return Err(match answer {
                Err(error) => Error::other(format!("{what}: not within {within:?}; last: {error}")),
                Ok(_) => Error::other(format!("{what}: not within {within:?}")),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
