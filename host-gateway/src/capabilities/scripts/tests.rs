//! Pins, races, links, timeouts and bounds of `scripts`, with real scripts.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use viworks_signing::grant::{Patterns, Scopes};
use viworks_signing::release::EffectClass;

use super::pinned::{PinError, Pinned};
use super::wit::{self, Host as _};
use super::*;
use crate::effects::bench::Bench;
use crate::process::Program;

fn bench() -> Bench {
    let bench = Bench::new(|dir, config| config.scripts.root = Some(dir.join("scripts")));
    assert!(std::fs::create_dir(root(&bench)).is_ok());
    mode(&root(&bench), 0o755);
    bench
}

fn root(bench: &Bench) -> PathBuf {
    bench.dir.path().join("scripts")
}

fn mode(path: &Path, mode: u32) {
    assert!(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).is_ok());
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Write a script and give its digest.
fn script(bench: &Bench, name: &str, text: &str) -> String {
    let path = root(bench).join(name);
    assert!(std::fs::write(&path, text).is_ok());
    mode(&path, 0o755);
    digest(text)
}

fn scopes(names: &str, pins: &[(&str, &str)]) -> Scopes {
    let names = Patterns::parse([names]).unwrap_or_default();
    let pins = pins.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
    Scopes { scripts: Some(ScriptsScope { names, pins }), ..Scopes::default() }
}

async fn run(bench: &Bench, pins: &[(&str, &str)], name: &str, args: &[&str]) -> Result<wit::Output, types::Failure> {
    let mut call = bench.call(&scopes("*", &[]), &scopes("*", pins), EffectClass::Irreversible).await;
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    match call.run(name.into(), args).await {
        Ok(answer) => answer,
        Err(trap) => panic!("{trap}"),
    }
}

#[track_caller]
fn good(answer: Result<wit::Output, types::Failure>) -> wit::Output {
    match answer {
        Ok(output) => output,
        Err(failure) => panic!("{failure:?}"),
    }
}

#[track_caller]
fn denied_by(answer: Result<wit::Output, types::Failure>) -> String {
    match answer {
        Err(types::Failure::Denied(denial)) => denial.rule,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pinned_script_runs_with_its_arguments_and_nothing_else() {
    let bench = bench();
    let text =
        "#!/bin/sh\nprintf '%s|' \"$@\"; pwd; cat; env | cut -d= -f1 | sort | tr '\\n' ' '; echo bad >&2; exit 7\n";
    let pin = script(&bench, "hello.sh", text);
    let output = good(run(&bench, &[("hello.sh", &pin)], "hello.sh", &["a b", "$(id)", ";reboot", "--x"]).await);
    assert_eq!(output.stdout, "a b|$(id)|;reboot|--x|/\nLANG PATH PWD VIW_INVOCATION ");
    assert_eq!((output.stderr.as_str(), output.exit_code, output.truncated), ("bad\n", 7, false));
}

#[tokio::test]
async fn programs_and_other_interpreters_run_too() {
    let bench = bench();
    let Ok(echo) = std::fs::read("/bin/echo") else { panic!("no /bin/echo") };
    assert!(std::fs::write(root(&bench).join("echo"), &echo).is_ok());
    let pin = hex::encode(Sha256::digest(&echo));
    assert_eq!(good(run(&bench, &[("echo", &pin)], "echo", &["hi"]).await).stdout, "hi\n");
    let pin = script(&bench, "count.awk", "#!/usr/bin/env -S awk -f\nBEGIN { print 1 + 1 }\n");
    assert_eq!(good(run(&bench, &[("count.awk", &pin)], "count.awk", &[]).await).stdout, "2\n");
}

#[tokio::test]
async fn without_the_right_pin_nothing_runs() {
    let bench = bench();
    let ran = bench.dir.path().join("ran");
    let pin = script(&bench, "x.sh", &format!("#!/bin/sh\ntouch {}\n", ran.display()));
    let wrong = digest("something else");
    assert_eq!(denied_by(run(&bench, &[], "x.sh", &[]).await), "policy: scripts.pins");
    assert_eq!(denied_by(run(&bench, &[("x.sh", &wrong)], "x.sh", &[]).await), "policy: scripts.pins");
    assert_eq!(denied_by(run(&bench, &[("x.sh", &pin.to_uppercase())], "x.sh", &[]).await), "policy: scripts.pins");

    // A release can't pin for itself, and its names hold.
    let mut call = bench.call(&scopes("*", &[("x.sh", &pin)]), &scopes("*", &[]), EffectClass::Irreversible).await;
    assert!(call.run("x.sh".into(), Vec::new()).await.is_ok_and(|a| denied_by(a) == "policy: scripts.pins"));
    let mut call = bench.call(&scopes("y*", &[]), &scopes("*", &[("x.sh", &pin)]), EffectClass::Irreversible).await;
    assert!(call.run("x.sh".into(), Vec::new()).await.is_ok_and(|a| denied_by(a) == "release: scripts.names"));
    assert_eq!(call.meter.denials, 1);
    let mut call = bench.call(&scopes("*", &[]), &scopes("*", &[("x.sh", &pin)]), EffectClass::Read).await;
    assert!(call.run("x.sh".into(), Vec::new()).await.is_ok_and(|a| denied_by(a) == "release: verb effect is read"));
    let mut call = bench.call(&Scopes::default(), &scopes("*", &[("x.sh", &pin)]), EffectClass::Irreversible).await;
    assert!(call.run("x.sh".into(), Vec::new()).await.is_ok_and(|a| denied_by(a) == "grant: scripts"));
    assert!(!ran.exists());
    good(run(&bench, &[("x.sh", &pin)], "x.sh", &[]).await);
    assert!(ran.exists());
}

#[tokio::test]
async fn what_is_hashed_is_what_runs_whatever_happens_to_the_file() {
    let bench = bench();
    let pin = script(&bench, "x.sh", "#!/bin/sh\necho good\n");
    let path = root(&bench).join("x.sh");
    let Ok(pinned) = Pinned::open(&root(&bench), "x.sh", &pin) else { panic!("not pinned") };
    // Rewritten in place, then replaced, between hash and run.
    assert!(std::fs::write(&path, "#!/bin/sh\necho evil\n").is_ok());
    let ran = Program::new(pinned.path()).run().await;
    assert!(ran.is_ok_and(|o| o.stdout == b"good\n"));
    assert!(std::fs::remove_file(&path).is_ok() && std::fs::copy("/bin/false", &path).is_ok());
    let ran = Program::new(pinned.path()).run().await;
    assert!(ran.is_ok_and(|o| o.stdout == b"good\n"));
    // Nobody can write what runs, not even through its path.
    assert!(std::fs::write(pinned.path(), "#!/bin/sh\necho evil\n").is_err());
    assert!(
        std::fs::OpenOptions::new()
            .append(true)
            .open(pinned.path())
            .and_then(|mut f| {
                use std::io::Write as _;
                f.write_all(b"echo evil\n")
            })
            .is_err()
    );
    assert!(matches!(Pinned::open(&root(&bench), "x.sh", &pin), Err(PinError::OtherBytes(_))));
}

#[tokio::test]
async fn links_directories_and_writable_files_are_refused() {
    let bench = bench();
    let text = "#!/bin/sh\necho x\n";
    let pin = script(&bench, "x.sh", text);
    let try_open = |name: &str| Pinned::open(&root(&bench), name, &pin);
    assert!(symlink("x.sh", root(&bench).join("link.sh")).is_ok());
    assert!(matches!(try_open("link.sh"), Err(PinError::NotAFile(_))));
    assert!(std::fs::create_dir(root(&bench).join("dir")).is_ok());
    assert!(matches!(try_open("dir"), Err(PinError::NotAFile(_))));
    let fifo = root(&bench).join("fifo");
    let made = rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0);
    assert!(made.is_ok() && matches!(try_open("fifo"), Err(PinError::NotAFile(_))));
    assert!(matches!(try_open("none.sh"), Err(PinError::Missing(_))));
    for open in [0o775, 0o757] {
        mode(&root(&bench).join("x.sh"), open);
        assert!(matches!(try_open("x.sh"), Err(PinError::OpenToOthers(_))));
    }
    mode(&root(&bench).join("x.sh"), 0o755);
    mode(&root(&bench), 0o777);
    assert!(matches!(try_open("x.sh"), Err(PinError::OpenToOthers(_))));
    mode(&root(&bench), 0o755);
    assert!(try_open("x.sh").is_ok());
    if rustix::process::geteuid().is_root() {
        assert!(std::os::unix::fs::chown(root(&bench).join("x.sh"), Some(20_777), None).is_ok());
        assert!(matches!(try_open("x.sh"), Err(PinError::ForeignOwner(_))));
    }
    assert!(std::fs::write(root(&bench).join("big"), vec![b'#'; 9 << 20]).is_ok());
    assert!(matches!(try_open("big"), Err(PinError::TooBig(_))));
}

#[tokio::test]
async fn names_and_arguments_are_bounded_and_flat() {
    let bench = bench();
    for name in ["", "../x.sh", "/bin/sh", "a/b", ".hidden", "-x", "a b", "x\n", "x\0", &"x".repeat(129)] {
        let answer = run(&bench, &[], name, &[]).await;
        assert!(matches!(answer, Err(types::Failure::InvalidArgument(_))), "{name:?}: {answer:?}");
    }
    let long = "x".repeat(MAX_ARG_BYTES + 1);
    for args in [vec!["a\0b"], vec![long.as_str()], vec!["x"; MAX_ARGS + 1]] {
        assert!(matches!(run(&bench, &[], "x.sh", &args).await, Err(types::Failure::InvalidArgument(_))));
    }
}

#[tokio::test]
async fn a_missed_deadline_kills_everything_the_script_started() {
    let bench = Bench::new(|dir, config| {
        config.scripts.root = Some(dir.join("scripts"));
        config.scripts.timeout_secs = 1;
    });
    assert!(std::fs::create_dir(root(&bench)).is_ok());
    mode(&root(&bench), 0o755);
    let file = bench.dir.path().join("pid");
    let pin = script(&bench, "slow.sh", &format!("#!/bin/sh\nsleep 60 &\necho $! > {}\nwait\n", file.display()));
    let answer = run(&bench, &[("slow.sh", &pin)], "slow.sh", &[]).await;
    assert!(matches!(&answer, Err(types::Failure::Failed(t)) if t.contains("killed after 1000 ms")), "{answer:?}");
    let pid = std::fs::read_to_string(file).unwrap_or_default();
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let until = Instant::now() + Duration::from_secs(5);
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z "));
    while alive() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!pid.is_empty() && !alive());
}

#[tokio::test]
async fn output_is_cut_at_the_cap() {
    let bench = bench();
    let pin = script(&bench, "loud.sh", "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x\n");
    let output = good(run(&bench, &[("loud.sh", &pin)], "loud.sh", &[]).await);
    assert_eq!((output.stdout.len(), output.truncated), (64 * 1024, true));
}

#[tokio::test]
async fn only_pinned_scripts_of_the_grant_are_listed_and_a_missing_root_is_said() {
    let bench = bench();
    let policy = scopes("*", &[("a.sh", "aa"), ("b.sh", "bb")]);
    let mut call = bench.call(&scopes("a*", &[]), &policy, EffectClass::Read).await;
    let Ok(Ok(listed)) = call.list().await else { panic!("not listed") };
    assert_eq!(listed.iter().map(|s| (s.name.as_str(), s.sha256.as_str())).collect::<Vec<_>>(), [("a.sh", "aa")]);
    let bench = Bench::new(|_, _| {});
    let answer = run(&bench, &[("a.sh", "aa")], "a.sh", &[]).await;
    assert!(matches!(answer, Err(types::Failure::Unavailable(_))), "{answer:?}");
}
