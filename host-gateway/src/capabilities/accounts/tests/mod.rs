//! The whole capability against a prefix root (and, in [`real`], against this machine's own
//! accounts): every function, every refusal, every inverse.

mod changing;
mod creating;
mod homes;
mod planning;
mod real;
mod removing;

use std::path::{Path, PathBuf};

use viworks_signing::grant::{AccountsScope, Patterns, Scopes, UidRange};
use viworks_signing::release::EffectClass;

use super::wit::{self, Host as _};
use super::{Change, Home};
use crate::capabilities::Call;
use crate::capabilities::wit::viworks::gateway::types;
use crate::effects::bench::{Applied, Bench};
use crate::effects::{Effect, Inverse};
use crate::failure::Failure;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ ann@example.com";
const HASH: &str = "$5$salt$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

type Answer<T> = Result<T, types::Failure>;

fn patterns(texts: &[&str]) -> Patterns {
    match Patterns::parse(texts.iter().copied()) {
        Ok(patterns) => patterns,
        Err(e) => panic!("{e}"),
    }
}

fn scopes(scope: AccountsScope) -> Scopes {
    Scopes { accounts: Some(scope), ..Scopes::default() }
}

/// What the plugin asks for: everything that can be asked for.
fn release() -> Scopes {
    scopes(AccountsScope { groups: Patterns::any(), password_hashes: true, ..AccountsScope::default() })
}

fn policy_scope() -> AccountsScope {
    AccountsScope {
        groups: patterns(&["docker", "dev*"]),
        uids: UidRange { min: 20_000, max: 20_999 },
        shells: vec!["/bin/bash".into(), "/bin/sh".into()],
        password_hashes: true,
        ..AccountsScope::default()
    }
}

fn bench() -> Bench {
    bench_with(|_| {})
}

fn bench_with(more: impl FnOnce(&mut super::Config)) -> Bench {
    Bench::new(|dir, config| {
        config.accounts.root = Some(dir.join("root"));
        more(&mut config.accounts);
    })
}

fn root(bench: &Bench) -> PathBuf {
    bench.dir.path().join("root")
}

fn etc(bench: &Bench, file: &str) -> String {
    std::fs::read_to_string(root(bench).join("etc").join(file)).unwrap_or_default()
}

async fn call(bench: &Bench) -> Call {
    bench.call(&release(), &scopes(policy_scope()), EffectClass::Change).await
}

fn new(name: &str) -> wit::NewAccount {
    wit::NewAccount {
        name: name.into(),
        comment: None,
        shell: None,
        groups: Vec::new(),
        ssh_keys: Vec::new(),
        password_hash: None,
        uid: None,
    }
}

impl super::Provider {
    /// An account's uid and groups as a plan so far leaves them.
    pub(crate) async fn tried(&self, name: &str, planned: &[Effect]) -> Option<(u32, Vec<String>)> {
        let database = self.planned(planned).await.ok()?;
        database.find(name).map(|entry| (entry.uid, database.groups_of(name)))
    }
}

/// Host functions trap only at the call limit.
fn untrapped<T>(answer: wasmtime::Result<T>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(trap) => panic!("{trap}"),
    }
}

async fn create(bench: &Bench, account: wit::NewAccount) -> Answer<wit::Account> {
    untrapped(call(bench).await.create(account).await)
}

async fn remove(bench: &Bench, name: &str, home: wit::HomeFate) -> Answer<wit::Account> {
    untrapped(call(bench).await.remove(name.into(), home).await)
}

async fn find(bench: &Bench, name: &str) -> Option<wit::Account> {
    good(untrapped(call(bench).await.find(name.into()).await))
}

/// Apply a change and give the way back.
async fn apply(bench: &Bench, change: Change) -> Result<Change, Failure> {
    let Applied { inverse, .. } = bench.apply(&Effect::Accounts(change)).await?;
    match inverse {
        Inverse::Effect(effect) => match *effect {
            Effect::Accounts(change) => Ok(change),
            other => panic!("{other:?} does not take back an account's change"),
        },
        Inverse::Irreversible => panic!("changes of accounts can be taken back"),
    }
}

#[track_caller]
fn good<T>(answer: Answer<T>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(failure) => panic!("{failure:?}"),
    }
}

/// The case of a failure and its text, or the rule where it was denied.
#[track_caller]
fn refused<T>(answer: Answer<T>) -> (&'static str, String) {
    match answer {
        Ok(_) => panic!("it was allowed"),
        Err(types::Failure::InvalidArgument(text)) => ("invalid-argument", text),
        Err(types::Failure::Denied(denial)) => ("denied", denial.rule),
        Err(types::Failure::Conflict(text)) => ("conflict", text),
        Err(types::Failure::NotFound(text)) => ("not-found", text),
        Err(types::Failure::Unavailable(text)) => ("unavailable", text),
        Err(types::Failure::Failed(text)) => ("failed", text),
        Err(types::Failure::Other(text)) => ("other", text),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Mode and owner of a path itself, not of what it links to.
fn looks(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(m) => (m.mode() & 0o7777, m.uid()),
        Err(e) => panic!("{}: {e}", path.display()),
    }
}
