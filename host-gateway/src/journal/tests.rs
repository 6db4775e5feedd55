//! The journal against crashes: copies of its files taken mid-way, and `kill -9`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use viworks_protocol::outcome::{EffectState, Outcome};

use super::store::Store;
use super::*;
use crate::host::{Host, HostConfig};

const NOW: u64 = 1_800_000_000_000;
const SOON: std::time::Duration = std::time::Duration::from_secs(10);

fn id(n: u32) -> InvocationId {
    format!("inv-{n:032x}").parse().unwrap()
}

fn report(text: &str) -> Report {
    Report::refused(Outcome::Failed, "failed", text, NOW)
}

/// An intent without a typed effect: the capabilities' changes are theirs to make.
async fn intend(journal: &Journal, n: u32, seq: u32) -> Result<(), JournalError> {
    journal.run(move |store| store.intent(&id(n), seq, "accounts.create", "create account deploy", "{}")).await
}

async fn applied(journal: &Journal, n: u32, seq: u32) -> Result<(), JournalError> {
    journal.effect_result(&id(n), seq, Some(&Inverse::Irreversible)).await
}

/// A host whose plugins' state is in this directory.
pub(super) fn host(dir: &Path) -> Arc<Host> {
    let mut config = HostConfig::default();
    config.state.file = Some(dir.join("plugin-state.db"));
    Arc::new(Host::new(&config))
}

/// What a crash right now would leave: the files as they are, the write-ahead log included.
fn crash(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn an_invocation_is_admitted_once_and_answered_from_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(matches!(journal.admit(&id(1), NOW).await, Ok(Admission::Fresh)));
    assert!(matches!(journal.admit(&id(1), NOW).await, Ok(Admission::Running)));
    assert_eq!((journal.knows(&id(1)).await, journal.knows(&id(2)).await), (Ok(true), Ok(false)));
    journal.finish(&id(1), &report("first")).await.unwrap();
    journal.finish(&id(1), &report("second")).await.unwrap();
    let Ok(Admission::Ended(ended)) = journal.admit(&id(1), NOW).await else { panic!("it ended") };
    assert_eq!(ended.failure.unwrap().message, "first");
    assert_eq!(journal.owed(), 1);
}

#[tokio::test]
async fn the_outbox_comes_in_pages_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..5 {
        journal.finish(&id(n), &report("r")).await.unwrap();
    }
    let first = journal.outbox(0, 2).await.unwrap();
    let second = journal.outbox(first[1].place, 10).await.unwrap();
    let ids = |page: &[Owed]| page.iter().map(|o| o.invocation.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), [id(0), id(1)]);
    assert_eq!(ids(&second), [id(2), id(3), id(4)]);

    for n in 0..5 {
        journal.acknowledge(&id(n)).await.unwrap();
    }
    assert!(journal.outbox(0, 10).await.unwrap().is_empty());
    // Places never return, so that no cursor passes over a later report.
    journal.finish(&id(9), &report("r")).await.unwrap();
    assert_eq!(ids(&journal.outbox(second[2].place, 10).await.unwrap()), [id(9)]);

    let large = "x".repeat(700_000);
    for n in 10..14 {
        journal.finish(&id(n), &report(&large)).await.unwrap();
    }
    assert!(journal.outbox(0, 100).await.unwrap().len() <= 3);
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    // Hold the thread inside one request until the others wait.
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (begun, holding) = oneshot::channel();
    let held = {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut begun = Some(begun);
            let work = move |_: &Store| {
                begun.take().map(|begun| begun.send(()));
                Ok(gate.recv_timeout(SOON).is_ok())
            };
            journal.run(work).await
        })
    };
    holding.await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.finish(&id(n), &report("r")).await })
        })
        .collect();
    let Ok(requests) = &journal.requests else { panic!("open") };
    let all_wait = async {
        while requests.capacity() > QUEUE - 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, all_wait).await.unwrap();
    let log = |dir: &Path| std::fs::metadata(dir.join("journal.db-wal")).map_or(0, |m| m.len());
    let before = log(dir.path());
    open.send(()).unwrap();
    assert!(held.await.unwrap().unwrap());
    for finished in waiting {
        assert!(finished.await.unwrap().is_ok());
    }
    let pages = (log(dir.path()) - before) / 4_096;
    assert!(pages < 40, "100 commits of their own write at least 100 pages; these wrote {pages}");
}

#[tokio::test]
async fn one_bad_request_spoils_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let eighth = id(8);
    let (bad, good) = tokio::join!(applied(&journal, 7, 0), journal.admit(&eighth, NOW));
    assert!(matches!(bad, Err(JournalError::Write(_))));
    assert!(matches!(good, Ok(Admission::Fresh)));
    assert!(matches!(journal.admit(&id(8), NOW).await, Ok(Admission::Running)));
}

#[tokio::test]
async fn after_a_crash_each_unfinished_invocation_gets_a_true_report() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 1..=4 {
        journal.admit(&id(n), NOW).await.unwrap();
    }
    intend(&journal, 2, 0).await.unwrap();
    intend(&journal, 3, 0).await.unwrap();
    applied(&journal, 3, 0).await.unwrap();
    intend(&journal, 3, 1).await.unwrap();
    journal.effect_result(&id(3), 1, None).await.unwrap();
    journal.finish(&id(4), &report("done")).await.unwrap();

    let copy = crash(dir.path());
    let after = Journal::open(copy.path()).unwrap();
    let host = host(copy.path());
    assert_eq!(after.has_unfinished().await, Ok(true));
    assert_eq!(after.recover(&host, NOW).await.unwrap(), Recovered { interrupted: 1, unknown: 2 });
    assert_eq!(after.recover(&host, NOW).await.unwrap(), Recovered::default());
    assert_eq!(after.has_unfinished().await, Ok(false));
    let reports = after.outbox(0, 10).await.unwrap();
    let of = |n: u32| &reports.iter().find(|o| o.invocation == id(n)).unwrap().report;
    assert_eq!(of(1).outcome, Outcome::Failed);
    assert_eq!(of(1).failure.as_ref().unwrap().code, "interrupted");
    assert_eq!(of(2).outcome, Outcome::Unknown);
    assert_eq!(of(2).effects[0].state, EffectState::Unknown);
    assert_eq!(of(2).effects[0].summary, "create account deploy");
    let states: Vec<_> = of(3).effects.iter().map(|e| e.state).collect();
    assert_eq!(states, [EffectState::Applied, EffectState::Failed]);
    assert_eq!(of(4).failure.as_ref().unwrap().message, "done");
    assert!(matches!(after.admit(&id(2), NOW).await, Ok(Admission::Ended(_))), "nothing runs twice");
}

#[tokio::test]
async fn forgets_what_is_acknowledged_and_past_its_time_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 1..=4 {
        journal.admit(&id(n), NOW).await.unwrap();
    }
    for n in 1..=2 {
        intend(&journal, n, 0).await.unwrap();
        journal.finish(&id(n), &report("r")).await.unwrap();
    }
    journal.admit(&id(5), NOW + 10).await.unwrap();
    journal.finish(&id(5), &report("r")).await.unwrap();
    journal.acknowledge(&id(1)).await.unwrap();
    journal.acknowledge(&id(5)).await.unwrap();
    assert_eq!(journal.forget(NOW).await.unwrap(), 0);
    assert_eq!(journal.forget(NOW + 1).await.unwrap(), 1);
    assert!(matches!(journal.admit(&id(1), NOW + 9).await, Ok(Admission::Fresh)), "forgotten");
    assert!(matches!(journal.admit(&id(2), NOW).await, Ok(Admission::Ended(_))), "owed");
    assert!(matches!(journal.admit(&id(3), NOW).await, Ok(Admission::Running)), "running");
    assert!(matches!(journal.admit(&id(5), NOW).await, Ok(Admission::Ended(_))), "valid");
}

#[tokio::test]
async fn a_full_disk_is_said_and_overcome() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.admit(&id(1), NOW).await.unwrap();
    journal.run(|store| store.limit_pages(1)).await.unwrap();
    let large = report(&"x".repeat(100_000));
    assert_eq!(journal.finish(&id(1), &large).await, Err(JournalError::Full));
    assert_eq!(journal.fault(), Some(JournalError::Full));
    journal.run(|store| store.limit_pages(10_000)).await.unwrap();
    journal.finish(&id(1), &large).await.unwrap();
    assert_eq!(journal.fault(), None);
}

#[tokio::test]
async fn a_damaged_or_used_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(Journal::open(dir.path()).map(drop), Err(JournalError::InUse));
    drop(journal);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), "no database at all, but long enough to be taken for one".repeat(100))
        .unwrap();
    let Err(error) = Journal::open(dir.path()) else { panic!("opened") };
    assert!(matches!(error, JournalError::Corrupt(_)), "{error:?}");
    assert!(std::fs::read(dir.path().join(FILE)).unwrap().starts_with(b"no database"));
    let journal = Journal::unusable(error.clone());
    assert_eq!(journal.admit(&id(1), NOW).await.map(drop), Err(error));
}

#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.admit(&id(1), NOW).await.unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

const CHILD: &str = "VIWORKS_TEST_JOURNAL_CHILD";

/// Not a test of its own: the process that the next test kills.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let journal = Journal::open(Path::new(&dir)).unwrap();
    for n in 0..1_000_000 {
        journal.admit(&id(n), NOW).await.unwrap();
        intend(&journal, n, 0).await.unwrap();
        if n % 2 == 0 {
            applied(&journal, n, 0).await.unwrap();
            journal.finish(&id(n), &report("done")).await.unwrap();
        }
        println!("durable {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn nothing_that_was_confirmed_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::child_that_writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut confirmed = 0;
    for line in lines.map_while(Result::ok) {
        if let Some((_, n)) = line.split_once("durable ") {
            confirmed = n.parse().unwrap();
        }
        if confirmed >= 150 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(confirmed >= 150);

    let journal = Journal::open(dir.path()).unwrap();
    journal.recover(&host(dir.path()), NOW).await.unwrap();
    for n in 0..=confirmed {
        let Ok(Admission::Ended(ended)) = journal.admit(&id(n), NOW).await else { panic!("{n} is lost") };
        if n % 2 == 0 {
            assert_eq!(ended.failure.unwrap().message, "done");
        } else {
            assert_eq!((ended.outcome, ended.effects.len()), (Outcome::Unknown, 1));
        }
    }
}
