//! useradd(8) and its kin, by argument vector: which arguments, and what their exit codes
//! mean. Called one at a time; names are checked before they come here.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::change::{LockState, Record};
use crate::failure::Failure;
use crate::process::{ProcessError, Program, first_existing};

/// They wait up to 15 seconds for the account files' lock.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Tools {
    prefix: Option<PathBuf>,
    useradd: PathBuf,
    usermod: PathBuf,
    userdel: PathBuf,
    groupadd: PathBuf,
    chpasswd: PathBuf,
    getent: PathBuf,
}

/// What `useradd` is told. The home is made by us, so that nothing follows a link.
#[derive(Debug)]
pub(super) struct AddUser<'a> {
    pub(super) name: &'a str,
    pub(super) uid: u32,
    /// An existing primary group; one of the account's own name otherwise.
    pub(super) gid: Option<u32>,
    pub(super) comment: &'a str,
    pub(super) home: &'a str,
    pub(super) shell: &'a str,
    pub(super) groups: &'a [String],
}

/// How adding a user ended, where that is more than a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    Yes,
    /// The uid belongs to an account that the files don't show (a directory service's).
    UidTaken,
}

impl Tools {
    pub(super) fn new(config: &Config) -> Self {
        let find = |given: &Option<PathBuf>, usual: [&str; 2]| given.clone().unwrap_or_else(|| first_existing(&usual));
        Self {
            prefix: config.root.clone(),
            useradd: find(&config.useradd, ["/usr/sbin/useradd", "/sbin/useradd"]),
            usermod: find(&config.usermod, ["/usr/sbin/usermod", "/sbin/usermod"]),
            userdel: find(&config.userdel, ["/usr/sbin/userdel", "/sbin/userdel"]),
            groupadd: find(&config.groupadd, ["/usr/sbin/groupadd", "/sbin/groupadd"]),
            chpasswd: find(&config.chpasswd, ["/usr/sbin/chpasswd", "/sbin/chpasswd"]),
            getent: first_existing(&["/usr/bin/getent", "/bin/getent"]),
        }
    }

    fn program(&self, path: &PathBuf) -> Program {
        let program = Program::new(path).deadline(DEADLINE);
        match &self.prefix {
            Some(root) => program.arg("--prefix").arg(root),
            None => program,
        }
    }

    /// Add an account that no password opens (`*`, which unlike useradd's `!` does not
    /// count as locked, so that key logins work).
    pub(super) async fn add(&self, user: &AddUser<'_>) -> Result<Added, Failure> {
        let mut program = self
            .program(&self.useradd)
            .args(["--no-create-home", "--password", "*"])
            .args(["--uid", &user.uid.to_string(), "--comment", user.comment])
            .args(["--home-dir", user.home, "--shell", user.shell])
            // Whatever useradd's own defaults are: what is made is what was foreseen.
            .args(["--expiredate", ""]);
        program = match user.gid {
            Some(gid) => program.args(["--no-user-group", "--gid", &gid.to_string()]),
            None => program.arg("--user-group"),
        };
        if !user.groups.is_empty() {
            program = program.args(["--groups", &user.groups.join(",")]);
        }
        match run("useradd", program.args(["--", user.name])).await {
            Err((Some(4), _)) => Ok(Added::UidTaken),
            Err((Some(6), text)) => Err(Failure::NotFound(text)),
            Err((Some(9), text)) => Err(Failure::Conflict(text)),
            other => other.map(|()| Added::Yes).map_err(|e| general(e, 1)),
        }
    }

    /// Whether the host knows this uid from elsewhere than its files (a directory service).
    pub(super) async fn knows_uid(&self, uid: u32) -> bool {
        if self.prefix.is_some() {
            return false;
        }
        let getent = Program::new(&self.getent).deadline(DEADLINE).args(["passwd", &uid.to_string()]);
        // One that can't be asked knows nothing; useradd asks once more.
        getent.run().await.is_ok_and(|output| output.status.success())
    }

    pub(super) async fn add_group(&self, name: &str, gid: u32) -> Result<(), Failure> {
        let program = self.program(&self.groupadd).args(["--gid", &gid.to_string(), "--", name]);
        match run("groupadd", program).await {
            Err((Some(4 | 9), text)) => Err(Failure::Conflict(text)),
            other => other.map_err(|e| general(e, 10)),
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Failure> {
        match run("userdel", self.program(&self.userdel).args(["--", name])).await {
            Err((Some(8), text)) => Err(Failure::Conflict(text)),
            other => other.map_err(|e| general(e, 1)),
        }
    }

    pub(super) async fn set_groups(&self, name: &str, groups: &[String]) -> Result<(), Failure> {
        self.modify(["--groups", &groups.join(",")], name).await
    }

    /// Make the lock what `after` says; the hash behind it stays.
    pub(super) async fn set_lock(&self, name: &str, before: LockState, after: LockState) -> Result<(), Failure> {
        let expires = after.expires.map(|day| day.to_string()).unwrap_or_default();
        let mut args = vec!["--expiredate", expires.as_str()];
        if before.locked != after.locked {
            args.push(if after.locked { "--lock" } else { "--unlock" });
        }
        self.modify(args, name).await
    }

    /// Set the password field as shadow(5) has it.
    pub(super) async fn set_password(&self, name: &str, field: &str) -> Result<(), Failure> {
        // Arguments can be read by every local user while the program runs, and a hash is
        // worth guessing at, so on the host it goes through stdin. chpasswd knows no
        // --prefix; a prefix directory's hashes open no account of this host.
        if self.prefix.is_some() {
            return self.modify(["--password", field], name).await;
        }
        let program = Program::new(&self.chpasswd).deadline(DEADLINE).arg("--encrypted");
        run("chpasswd", program.input(format!("{name}:{field}\n"))).await.map_err(|e| general(e, 5))
    }

    /// What a restored account gets back beyond what useradd was told.
    pub(super) async fn restore_shadow(&self, record: &Record) -> Result<(), Failure> {
        self.set_password(&record.name, &record.password).await?;
        match record.expires {
            Some(day) => self.modify(["--expiredate", &day.to_string()], &record.name).await,
            None => Ok(()),
        }
    }

    async fn modify<'a>(&self, args: impl IntoIterator<Item = &'a str>, name: &str) -> Result<(), Failure> {
        match run("usermod", self.program(&self.usermod).args(args).args(["--", name])).await {
            Err((Some(6), text)) => Err(Failure::NotFound(text)),
            Err((Some(8), text)) => Err(Failure::Conflict(text)),
            other => other.map_err(|e| general(e, 1)),
        }
    }
}

/// An exit code, if it came to that, and a text for people.
type Refusal = (Option<i32>, String);

async fn run(tool: &str, program: Program) -> Result<(), Refusal> {
    match program.run().await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err((Some(output.code()), format!("{tool}: {}", output.complaint()))),
        Err(error @ ProcessError::Start { .. }) => Err((None, format!("{tool}: {error}"))),
        Err(error) => Err((Some(-1), format!("{tool}: {error}"))),
    }
}

/// `locked` is the tool's code for account files that it could not lock.
fn general((code, text): Refusal, locked: i32) -> Failure {
    match code {
        None => Failure::Unavailable(text),
        Some(code) if code == locked => Failure::Unavailable(text),
        Some(_) => Failure::Failed(text),
    }
}
