//! A PostgreSQL server of the test's own: as user `postgres` where root runs the test, on
//! a socket in a folder of its own, with no port. It ends, and its folder goes, with the
//! process that started it, however that ends: a shell waits at a pipe for that.
//!
//! The cluster is made once in a machine's target folder and copied for each server.

use std::fs::{self, File};
use std::io::{Error, Result, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const SOON: Duration = Duration::from_secs(30);

/// Waits for a word, or for the end of whoever would say one.
const KEEPER: &str = r#"
dir=$1; shift
"$@" </dev/null >>"$dir/server.log" 2>&1 &
server=$!
echo $server >"$dir/pid.part" && mv "$dir/pid.part" "$dir/pid"
read -r word
case $word in
  stop) kill -INT $server; wait $server ;;
  crash) kill -QUIT $server; wait $server ;;
  *) kill -CONT $server; kill -QUIT $server; wait $server; rm -rf "$dir" ;;
esac
"#;

/// A running server, or one that was stopped and can be started again.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    durable: bool,
    keeper: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Server {
    /// Start one that survives crashes, as in production.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up, with its log.
    pub fn start() -> Result<Self> {
        Self::start_with(true)
    }

    /// Start one; without `durable`, it syncs nothing and is quicker.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up, with its log.
    pub fn start_with(durable: bool) -> Result<Self> {
        let dir = fresh_folder()?;
        run(Command::new("cp").arg("-a").arg(template()?).arg(dir.join("data")))?;
        let server = Self { dir, durable, keeper: Mutex::new(None), databases: AtomicU32::new(0) };
        server.start_again()?;
        Ok(server)
    }

    /// Start it again after [`Self::stop`] or [`Self::crash`].
    ///
    /// # Errors
    /// When it does not come up, with its log.
    pub fn start_again(&self) -> Result<()> {
        let mut keeper = self.keeper.lock().map_err(|_| Error::other("a thread panicked"))?;
        // The file of an earlier run would name a process that is no more.
        let _ = fs::remove_file(self.dir.join("pid"));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(KEEPER).arg("keeper").arg(&self.dir);
        if is_root()? {
            command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        let syncs = if self.durable { "on" } else { "off" };
        command.arg(format!("{PROGRAMS}/postgres")).arg("-D").arg(self.dir.join("data"));
        for setting in [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.dir.display()),
            "shared_buffers=32MB".to_owned(),
            "max_connections=60".to_owned(),
            format!("fsync={syncs}"),
            format!("full_page_writes={syncs}"),
            format!("synchronous_commit={syncs}"),
        ] {
            command.arg("-c").arg(setting);
        }
        // No pipe of the test is inherited: whoever waits for its end must not wait for this.
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        *keeper = Some(command.spawn()?);
        drop(keeper);
        self.ready()
    }

    fn ready(&self) -> Result<()> {
        let until = Instant::now() + SOON;
        while self.sql("postgres", "SELECT 1").is_err() {
            if Instant::now() > until {
                let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                return Err(Error::other(format!("PostgreSQL does not come up:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stop it as its administrator would, and wait for its end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        self.tell("stop\n")
    }

    /// End it at once, as a crash of its host would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&self) -> Result<()> {
        self.tell("crash\n")
    }

    fn tell(&self, word: &str) -> Result<()> {
        let mut keeper = self.keeper.lock().map_err(|_| Error::other("a thread panicked"))?;
        let mut child = keeper.take().ok_or_else(|| Error::other("it does not run"))?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(word.as_bytes())?;
        }
        child.wait().map(drop)
    }

    /// The server's process, and those that serve connections now.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let own: u32 = fs::read_to_string(self.dir.join("pid"))?.trim().parse().map_err(Error::other)?;
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        let mut all = vec![own];
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        Ok(all)
    }

    /// A new database's URL.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn database(&self) -> Result<String> {
        let name = format!("viworks_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(&name))
    }

    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.dir.display())
    }

    /// What `psql` prints of a statement: rows alone.
    ///
    /// # Errors
    /// With what it said.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = Command::new(format!("{PROGRAMS}/psql"));
        psql.arg("-h").arg(&self.dir).args(["-U", "postgres", "-d", database, "-AtXq", "-v", "ON_ERROR_STOP=1"]);
        run(psql.args(["-c", statement]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(keeper) = self.keeper.get_mut()
            && let Some(mut child) = keeper.take()
        {
            drop(child.stdin.take());
            // It ends the server and removes the folder.
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// Short, since a socket's path is bounded; writable for whoever the server runs as.
fn fresh_folder() -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(format!("/tmp/viw-pg-{}-{number}", std::process::id()));
    // Of an earlier process with this number that was killed with its keeper.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir)?;
    give(&dir)?;
    Ok(dir)
}

fn give(dir: &Path) -> Result<()> {
    if is_root()? { run(Command::new("chown").arg("postgres:").arg(dir)).map(drop) } else { Ok(()) }
}

/// A new cluster's files, made once for all tests of this target folder.
fn template() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let is_profile = |dir: &&Path| dir.ends_with("debug") || dir.ends_with("release");
    let profile = exe.ancestors().find(is_profile).ok_or_else(|| Error::other("not run from a target folder"))?;
    let keep = profile.with_file_name("tmp");
    fs::create_dir_all(&keep)?;
    let (made, lock) = (keep.join("postgres-15"), File::create(keep.join("postgres-15.lock"))?);
    lock.lock()?;
    if made.join("PG_VERSION").is_file() {
        return Ok(made);
    }
    // Made where the server's user may write, then moved; whole or not at all.
    let dir = fresh_folder()?;
    let mut initdb = Command::new(if is_root()? { "setpriv" } else { "env" });
    if is_root()? {
        initdb.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    initdb.arg(format!("{PROGRAMS}/initdb")).arg("-D").arg(dir.join("data"));
    initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"]);
    run(initdb.current_dir("/"))?;
    let part = keep.join("postgres-15.part");
    let _ = fs::remove_dir_all(&part);
    run(Command::new("cp").arg("-a").arg(dir.join("data")).arg(&part))?;
    fs::rename(&part, &made)?;
    fs::remove_dir_all(&dir)?;
    Ok(made)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::other(format!("{command:?} {}: {said}", output.status)))
}
