//! What `process` promises, tried with the programs every system has.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Output, ProcessError, Program};

fn sh(script: &str) -> Program {
    // Only tests run a shell: it is the shortest way to a program that misbehaves.
    Program::new("/bin/sh").args(["-c", script])
}

async fn ok(program: Program) -> Output {
    match program.run().await {
        Ok(output) => output,
        Err(e) => panic!("{e}"),
    }
}

/// A file that the script writes its background child's id to, waited for.
async fn pid_in(file: &Path) -> i32 {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(pid) = std::fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()) {
            return pid;
        }
        assert!(Instant::now() < until, "the script wrote no pid");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive(pid: i32) -> bool {
    // A zombie that waits for its new parent is not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

async fn gone(pid: i32) -> bool {
    let until = Instant::now() + Duration::from_secs(5);
    while alive(pid) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    !alive(pid)
}

#[tokio::test]
async fn arguments_arrive_as_they_are_in_a_clean_environment() {
    let out = ok(Program::new("/usr/bin/printf").args(["%s|", "a b", "$HOME", ";id"])).await;
    assert_eq!(String::from_utf8_lossy(&out.stdout), "a b|$HOME|;id|");
    let out = ok(Program::new("/usr/bin/env").env("VIW_INVOCATION", "i-1")).await;
    let mut names: Vec<_> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["LANG=C.UTF-8".to_owned(), format!("PATH={}", super::PATH), "VIW_INVOCATION=i-1".into()]);
    let out = ok(sh("pwd; cat; exit 3")).await;
    assert_eq!((out.code(), out.stdout.as_slice()), (3, b"/\n".as_slice()));
}

#[tokio::test]
async fn input_is_read_and_descriptors_are_not_inherited() {
    let out = ok(Program::new("/bin/cat").input("hello")).await;
    assert_eq!(out.stdout, b"hello");
    let Ok(open) = tempfile::NamedTempFile::with_prefix("viw-not-inherited") else { panic!("no temporary file") };
    let out = ok(Program::new("/bin/ls").args(["-l", "/proc/self/fd"])).await;
    assert!(out.stdout.starts_with(b"total"));
    assert!(!String::from_utf8_lossy(&out.stdout).contains("viw-not-inherited"));
    drop(open);
}

#[tokio::test]
async fn output_is_cut_at_the_cap_and_the_program_does_not_hang() {
    let out = ok(sh("head -c 1000000 /dev/zero; echo bad >&2").output_cap(1000)).await;
    assert_eq!((out.stdout.len(), out.truncated, out.code()), (1000, true, 0));
    assert_eq!(out.complaint(), "bad");
    let out = ok(sh("printf 123").output_cap(3)).await;
    assert_eq!((out.stdout.as_slice(), out.truncated), (b"123".as_slice(), false));
}

#[tokio::test]
async fn a_missed_deadline_kills_the_whole_group() {
    let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
    let file = dir.path().join("pid");
    let program = sh(&format!("sleep 60 & echo $! > {}; wait", file.display())).deadline(Duration::from_millis(400));
    let started = Instant::now();
    assert!(matches!(program.run().await, Err(ProcessError::TimedOut { .. })));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(gone(pid_in(&file).await).await);
}

#[tokio::test]
async fn a_dropped_run_kills_the_whole_group() {
    let Ok(dir) = tempfile::tempdir() else { panic!("no temporary directory") };
    let file = dir.path().join("pid");
    let run = tokio::spawn(sh(&format!("sleep 60 & echo $! > {}; wait", file.display())).run());
    let pid = pid_in(&file).await;
    assert!(alive(pid));
    run.abort();
    assert!(gone(pid).await);
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed() {
    let out = ok(sh("sleep 60 & echo $!")).await;
    let Ok(pid) = String::from_utf8_lossy(&out.stdout).trim().parse::<i32>() else { panic!("no pid") };
    assert!(gone(pid).await);
    assert!(out.took < Duration::from_secs(5));
}

#[tokio::test]
async fn signals_and_missing_programs_are_told_apart() {
    assert_eq!(ok(sh("kill -9 $$")).await.code(), 137);
    assert!(matches!(Program::new("/nonexistent/x").run().await, Err(ProcessError::Start { .. })));
    assert!(matches!(Program::new("ls").run().await, Err(ProcessError::RelativePath(_))));
}
