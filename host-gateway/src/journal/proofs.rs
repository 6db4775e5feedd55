//! What the journal promises of receipts and of its own cost: one chain whatever happens,
//! and two commits for a verb with one effect.

use viworks_protocol::id::{AgentId, CommandId};
use viworks_protocol::outcome::{Cost, EffectReport, EffectState, Outcome};
use viworks_protocol::receipt::export::{Line, Trust, verify_export};
use viworks_protocol::receipt::{self, Receipt};
use viworks_signing::keys::PublicKey;

use super::tests::host;
use super::*;
use crate::capabilities::state::{Change, Expect};

const NOW: u64 = 1_800_000_000_000;

fn agent() -> AgentId {
    "web-01".parse().unwrap()
}

fn draft(n: u32) -> Receipt {
    let command = CommandId::new(NOW + u64::from(n));
    let invocation = InvocationId::derive(&command, &[1; 32], &agent());
    Receipt {
        warrant_sha256: "ab".repeat(32),
        caller: "alice".into(),
        verb: "add_user".into(),
        plugin: "accounts".into(),
        digest: "cd".repeat(32),
        args_sha256: "ef".repeat(32),
        ..Receipt::draft(&agent(), command, invocation)
    }
}

fn effect(n: u32) -> Effect {
    let value = n.to_string();
    Effect::State(Change::Set { plugin: "p".into(), key: "k".into(), value, expect: Expect::Anything, bound: None })
}

fn report(n: u32) -> Report {
    let mut report = Report::refused(Outcome::Failed, "conflict", "it is there", NOW + u64::from(n));
    let (kind, summary) = ("state.set".into(), format!("set {n}"));
    report.effects =
        vec![EffectReport { kind, summary, state: EffectState::Applied, diff: vec![], irreversible: false }];
    report.cost = Cost { cpu_us: 5, denials: 1, ..Cost::default() };
    report
}

fn used() -> Used {
    let set = |text: &str| std::iter::once(text.to_owned()).collect();
    Used { granted: set("state"), denied: set("policy: state.max_keys") }
}

async fn run(journal: &Journal, n: u32) -> Envelope {
    let draft = draft(n);
    assert!(matches!(journal.admit_with(&draft, NOW).await, Ok(Admission::Fresh)));
    journal.intent(&draft.invocation, 0, &effect(n)).await.unwrap();
    journal.effect_noted(&draft.invocation, 0, Some(&Inverse::Irreversible)).await.unwrap();
    *journal.finish_with(&draft.invocation, &report(n), &used()).await.unwrap().unwrap()
}

fn key(journal: &Journal) -> PublicKey {
    PublicKey::from_pem(journal.receipt_key().unwrap()).unwrap()
}

fn check(envelopes: &[Envelope], key: PublicKey) {
    let lines: Vec<String> =
        envelopes.iter().map(|e| serde_json::to_string(&Line::Receipt(e.clone())).unwrap()).collect();
    let trust = Trust { agents: vec![(agent(), key)], ..Trust::default() };
    let summary = verify_export(lines.iter().map(String::as_str), &trust);
    assert!(summary.is_sound(), "{:?}", summary.faults);
    assert_eq!(summary.receipts, envelopes.len() as u64);
}

#[tokio::test]
async fn a_verb_with_one_effect_costs_two_commits() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    run(&journal, 0).await;
    for n in 1..=5 {
        let before = journal.commits();
        run(&journal, n).await;
        assert!(journal.commits() - before <= 2, "{} commits", journal.commits() - before);
    }
    // Three effects: each intent takes the result before it along.
    let (before, draft) = (journal.commits(), draft(9));
    journal.admit_with(&draft, NOW).await.unwrap();
    for seq in 0..3 {
        journal.intent(&draft.invocation, seq, &effect(seq)).await.unwrap();
        journal.effect_noted(&draft.invocation, seq, Some(&Inverse::Irreversible)).await.unwrap();
    }
    journal.finish_with(&draft.invocation, &report(9), &used()).await.unwrap();
    assert!(journal.commits() - before <= 4, "{} commits", journal.commits() - before);
}

#[tokio::test]
async fn many_at_once_share_their_commits() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let before = journal.commits();
    let verbs: Vec<_> = (0..64)
        .map(|n| {
            let journal = journal.clone();
            tokio::spawn(async move { run(&journal, n).await })
        })
        .collect();
    let mut envelopes = Vec::new();
    for verb in verbs {
        envelopes.push(verb.await.unwrap());
    }
    assert!(journal.commits() - before < 64, "{} commits for 64 verbs", journal.commits() - before);
    let place = |e: &Envelope| receipt::verify(e, &agent(), &[key(&journal)]).unwrap().receipt().seq;
    envelopes.sort_by_key(place);
    check(&envelopes, key(&journal));
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart_and_tells_of_its_reports() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut envelopes = vec![run(&journal, 0).await, run(&journal, 1).await];
    let before = key(&journal);
    // Killed after the intent of a third.
    let cut = draft(2);
    journal.admit_with(&cut, NOW).await.unwrap();
    journal.intent(&cut.invocation, 0, &effect(2)).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }

    let journal = Journal::open(copy.path()).unwrap();
    assert_eq!(key(&journal), before);
    journal.recover(&host(copy.path()), NOW).await.unwrap();
    envelopes.push(run(&journal, 3).await);
    let owed = journal.outbox(0, 10).await.unwrap();
    assert_eq!(owed.len(), 4);
    for report in owed.iter().map(|owed| &owed.report) {
        let verified = receipt::verify(report.receipt.as_ref().unwrap(), &agent(), &[before]).unwrap();
        assert!(verified.receipt().tells_of(report));
    }
    let recovered = owed.iter().find(|owed| owed.invocation == cut.invocation).unwrap();
    envelopes.insert(2, *recovered.report.receipt.clone().unwrap());
    check(&envelopes, before);

    let second = receipt::verify(&envelopes[1], &agent(), &[before]).unwrap();
    let receipt = second.receipt();
    assert_eq!((receipt.seq, receipt.denials, receipt.cpu_us), (2, 1, 5));
    assert_eq!((&receipt.granted[0][..], &receipt.denied[0][..]), ("state", "policy: state.max_keys"));
}

#[tokio::test]
async fn a_second_report_gets_no_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let first = run(&journal, 0).await;
    assert_eq!(journal.finish_with(&draft(0).invocation, &report(1), &used()).await, Ok(None));
    check(&[first, run(&journal, 1).await], key(&journal));
}

#[tokio::test]
async fn an_effect_needs_an_admitted_invocation_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.intent(&draft(0).invocation, 0, &effect(0)).await.is_err());
    run(&journal, 1).await;
    assert!(journal.intent(&draft(1).invocation, 1, &effect(1)).await.is_err());
}

#[tokio::test]
async fn what_waits_is_durable_within_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let before = journal.commits();
    journal.admit_with(&draft(0), NOW).await.unwrap();
    let durable = async {
        while journal.commits() == before {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(10), durable).await.is_ok());
}
