//! What verification finds: every way in which an export can lie.

use proptest::prelude::*;
use viworks_signing::keys::SecretKey;

use super::anchor::{Anchor, AnchoredHead};
use super::export::{AgentKey, Fault, Line, Summary, Trust, verify_export};
use super::*;
use crate::outcome::{Cost, DiffLine, Failure};

const NOW: u64 = 1_800_000_000_000;

fn agent(name: &str) -> AgentId {
    match name.parse() {
        Ok(agent) => agent,
        Err(e) => panic!("{e}"),
    }
}

/// Of a verb with three effects, one refusal and a result.
fn report() -> Report {
    let effect = |n: u32| EffectReport {
        kind: "accounts.create".into(),
        summary: format!("create account deploy{n} (uid 2000{n})"),
        state: EffectState::Applied,
        diff: vec![DiffLine { field: "uid".into(), before: None, after: Some(format!("2000{n}")) }],
        irreversible: false,
    };
    let mut report = Report::refused(Outcome::Failed, "conflict", "it is there", NOW);
    report.effects = (0..3).map(effect).collect();
    report.result = RawValue::from_string(r#"{"name":"deploy","uid":20001}"#.into()).ok();
    report.cost = Cost { wall_us: 31_250, cpu_us: 412, peak_memory_bytes: 1_114_112, host_calls: 9, denials: 1 };
    report.started_ms = NOW - 31;
    report
}

fn receipt(agent: &AgentId, n: u64) -> Receipt {
    let command = CommandId::new(NOW + n);
    let invocation = InvocationId::derive(&command, &[7; 32], agent);
    let mut receipt = Receipt {
        warrant_sha256: "ab".repeat(32),
        caller: "alice@example.com".into(),
        verb: "add_user".into(),
        plugin: "accounts".into(),
        digest: "cd".repeat(32),
        args_sha256: "ef".repeat(32),
        granted: vec!["accounts".into(), "state".into()],
        denied: vec!["policy: accounts.groups".into()],
        ..Receipt::draft(agent, command, invocation)
    };
    receipt.describe(&report());
    receipt
}

/// A gateway that writes receipts.
struct Writer {
    agent: AgentId,
    key: SecretKey,
    head: Head,
}

impl Writer {
    fn new(name: &str) -> Self {
        Self { agent: agent(name), key: SecretKey::generate(), head: Head::genesis() }
    }

    fn next(&mut self) -> Envelope {
        let mut next = receipt(&self.agent, self.head.seq);
        next.follow(&self.head);
        match sign(&next, &self.key) {
            Ok((envelope, head)) => {
                self.head = head;
                envelope
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn key(&self) -> Line {
        Line::Key(AgentKey { agent: self.agent.clone(), pem: self.key.public().to_pem().unwrap_or_default() })
    }

    fn anchored(&self) -> AnchoredHead {
        let (agent, key) = (self.agent.clone(), self.key.public().id());
        AnchoredHead { agent, key, seq: self.head.seq, sha256: self.head.sha256.clone() }
    }
}

/// A backend that anchors.
struct Anchorer {
    key: SecretKey,
    head: Head,
}

impl Anchorer {
    fn anchor(&mut self, heads: Vec<AnchoredHead>) -> Line {
        let (seq, prev) = (self.head.seq + 1, self.head.sha256.clone());
        let anchor = Anchor { version: anchor::VERSION, seq, prev, at_ms: NOW + seq, heads };
        match anchor::sign(&anchor, &self.key) {
            Ok((envelope, head)) => {
                self.head = head;
                Line::Anchor(envelope)
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn trust(&self) -> Trust {
        Trust { anchors: vec![self.key.public()], ..Trust::default() }
    }
}

/// Two agents, six receipts each, anchored after four; then the keys.
fn honest() -> (Vec<Line>, Trust, [Writer; 2]) {
    let mut writers = [Writer::new("web-01"), Writer::new("web-02")];
    let mut anchorer = Anchorer { key: SecretKey::generate(), head: Head::genesis() };
    let mut lines = Vec::new();
    for n in 0..6 {
        for writer in &mut writers {
            lines.push(Line::Receipt(writer.next()));
        }
        if n == 1 || n == 3 {
            lines.push(anchorer.anchor(writers.iter().map(Writer::anchored).collect()));
        }
    }
    lines.extend(writers.iter().map(Writer::key));
    (lines, anchorer.trust(), writers)
}

fn check(lines: &[Line], trust: &Trust) -> Summary {
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap_or_default()).collect();
    verify_export(text.iter().map(String::as_str), trust)
}

fn places(lines: &[Line], writer: &Writer) -> Vec<usize> {
    let own = |line: &Line| match line {
        Line::Receipt(envelope) => envelope.signatures[0].keyid == writer.key.public().id(),
        _ => false,
    };
    (0..lines.len()).filter(|i| own(&lines[*i])).collect()
}

#[test]
fn an_honest_export_is_sound() {
    let (lines, trust, writers) = honest();
    let summary = check(&lines, &trust);
    assert!(summary.is_sound(), "{:?}", summary.faults);
    assert_eq!((summary.receipts, summary.anchors, summary.chains.len()), (12, 2, 2));
    assert_eq!(summary.anchored_until_ms, Some(NOW + 2));
    assert!(summary.chains.iter().all(|c| (c.first, c.last.seq, c.anchored) == (1, 6, Some(4))));
    assert_eq!(summary.chains[0].last, writers[0].head);
}

#[test]
fn a_typical_receipt_is_small_and_tells_of_its_report_alone() {
    let mut writer = Writer::new("web-01.fra.example.com");
    let envelope = writer.next();
    let bytes = serde_json::to_vec(&envelope).unwrap_or_default().len();
    assert!(bytes <= 2 * 1024, "{bytes}");

    let Ok(verified) = verify(&envelope, &writer.agent, &[writer.key.public()]) else { panic!("verifies") };
    assert_eq!(verified.head(), writer.head);
    assert!(verified.receipt().tells_of(&report()));
    let changes: [fn(&mut Report); 6] = [
        |r| r.outcome = Outcome::Succeeded,
        |r| r.failure = None,
        |r| r.effects[1].state = EffectState::Stuck,
        |r| r.effects[2].summary.push('!'),
        |r| r.failure = Some(Failure { code: "failed".into(), message: String::new(), rule: None }),
        |r| r.result = None,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = report();
        change(&mut other);
        assert!(!verified.receipt().tells_of(&other), "change {i}");
    }
}

#[test]
fn one_receipt_is_held_to_key_agent_and_version() {
    let mut writer = Writer::new("web-01");
    let envelope = writer.next();
    let keys = [writer.key.public()];
    assert!(matches!(verify(&envelope, &agent("web-02"), &keys), Err(ReceiptError::Agent(_))));
    let other = [SecretKey::generate().public()];
    assert!(matches!(verify(&envelope, &writer.agent, &other), Err(ReceiptError::Signature(_))));

    let mut newer = receipt(&writer.agent, 1);
    newer.version = 2;
    let Ok((envelope, _)) = sign(&newer, &writer.key) else { panic!("signs") };
    assert!(matches!(verify(&envelope, &writer.agent, &keys), Err(ReceiptError::Version(2))));
    let envelope = Envelope::sign(PAYLOAD_TYPE, br#"{"version":3,"more":1}"#, &[&writer.key]);
    assert!(matches!(verify(&envelope, &writer.agent, &keys), Err(ReceiptError::Version(3))));
    let envelope = Envelope::sign(PAYLOAD_TYPE, br#"{"version":1}"#, &[&writer.key]);
    assert!(matches!(verify(&envelope, &writer.agent, &keys), Err(ReceiptError::Payload(_))));
}

#[test]
fn the_next_receipt_is_told_from_a_gap_a_fork_and_an_old_one() {
    let mut writer = Writer::new("web-01");
    let envelopes: Vec<_> = (0..3).map(|_| writer.next()).collect();
    let verified: Vec<_> =
        envelopes.iter().filter_map(|e| verify(e, &writer.agent, &[writer.key.public()]).ok()).collect();
    assert_eq!(verified[0].follows(&Head::genesis()), Ok(()));
    assert_eq!(verified[1].follows(&verified[0].head()), Ok(()));
    assert_eq!(verified[2].follows(&verified[0].head()), Err(ChainError::Gap));
    assert_eq!(verified[0].follows(&verified[1].head()), Err(ChainError::Behind));
    let other = Head { seq: 1, sha256: "00".repeat(32) };
    assert_eq!(verified[1].follows(&other), Err(ChainError::Fork));
}

#[test]
fn tampered_reordered_removed_and_cut_receipts_are_found() {
    let (lines, trust, writers) = honest();
    let own = places(&lines, &writers[0]);

    // The payload of one in place of another's.
    let mut tampered = lines.clone();
    if let (Line::Receipt(from), Line::Receipt(to)) = (lines[own[0]].clone(), &mut tampered[own[2]]) {
        to.payload = from.payload;
    }
    let faults = check(&tampered, &trust).faults;
    assert!(matches!(faults[..], [Fault::Tampered { .. }, Fault::Missing { from: 3, to: 3, .. }]), "{faults:?}");

    let mut reordered = lines.clone();
    reordered.swap(own[1], own[2]);
    let faults = check(&reordered, &trust).faults;
    assert!(matches!(faults[..], [Fault::Reordered { seq: 2, .. }]), "{faults:?}");

    let mut removed = lines.clone();
    removed.remove(own[2]);
    let faults = check(&removed, &trust).faults;
    assert!(matches!(faults[..], [Fault::Missing { from: 3, to: 3, .. }]), "{faults:?}");

    let mut repeated = lines.clone();
    repeated.insert(own[2] + 1, lines[own[2]].clone());
    let faults = check(&repeated, &trust).faults;
    assert!(matches!(faults[..], [Fault::Repeated { seq: 3, .. }]), "{faults:?}");

    // Cut at its end, before what an anchor saw.
    let cut: Vec<_> = (0..lines.len()).filter(|i| !own[3..].contains(i)).map(|i| lines[i].clone()).collect();
    let faults = check(&cut, &trust).faults;
    assert!(matches!(faults[..], [Fault::Truncated { last: 3, anchored: 4, .. }]), "{faults:?}");

    // The whole agent gone, its key too.
    let gone: Vec<_> = lines.iter().filter(|l| !own.iter().any(|i| lines[*i] == **l)).cloned().collect();
    let gone: Vec<_> = gone.into_iter().filter(|l| *l != writers[0].key()).collect();
    let faults = check(&gone, &trust).faults;
    assert!(matches!(faults[..], [Fault::Truncated { last: 0, anchored: 4, .. }]), "{faults:?}");
    let only = Trust { only: Some(writers[1].agent.clone()), ..trust.clone() };
    assert!(check(&gone, &only).is_sound());
}

#[test]
fn a_late_beginning_needs_an_anchor() {
    let (lines, trust, writers) = honest();
    let own = places(&lines, &writers[0]);
    let from = |n: usize| -> Vec<Line> {
        (0..lines.len()).filter(|i| !own[..n].contains(i)).map(|i| lines[i].clone()).collect()
    };
    assert!(check(&from(2), &trust).is_sound(), "an anchor confirms the second");
    let faults = check(&from(1), &trust).faults;
    assert!(matches!(faults[..], [Fault::NoBeginning { seq: 2, .. }]), "{faults:?}");
}

#[test]
fn forks_are_found_by_the_chain_and_by_anchors() {
    // The gateway's key holder rewrites history from the fourth receipt on.
    let (mut lines, trust, writers) = honest();
    let own = places(&lines, &writers[0]);
    let Line::Receipt(third) = &lines[own[2]] else { panic!("a receipt") };
    let Ok(third) = verify(third, &writers[0].agent, &[writers[0].key.public()]) else { panic!("verifies") };
    let [writer, _] = writers;
    let mut forged = Writer { head: third.head(), ..writer };
    for i in &own[3..] {
        lines[*i] = Line::Receipt(forged.next());
    }
    let faults = check(&lines, &trust).faults;
    assert!(matches!(faults[..], [Fault::Forked { seq: 4, .. }]), "{faults:?}");

    // Both histories side by side.
    let (mut lines, trust, writers) = honest();
    let [writer, _] = writers;
    let mut forged = Writer { head: third.head(), ..writer };
    lines.push(Line::Receipt(forged.next()));
    assert!(check(&lines, &trust).faults.iter().any(|f| matches!(f, Fault::Forked { seq: 4, .. })));
}

#[test]
fn keys_are_believed_for_an_anchor_or_by_hand_only() {
    let (lines, trust, writers) = honest();
    let nobody = check(&lines, &Trust::default());
    assert_eq!((nobody.receipts, nobody.fault_count), (0, 12));
    assert!(nobody.faults.iter().all(|f| matches!(f, Fault::UnknownKey { .. })));

    let by_hand =
        Trust { agents: writers.iter().map(|w| (w.agent.clone(), w.key.public())).collect(), ..Trust::default() };
    assert!(check(&lines, &by_hand).is_sound());

    // An anchor of another key vouches for nothing.
    let other = Trust { anchors: vec![SecretKey::generate().public()], ..trust };
    let faults = check(&lines, &other).faults;
    assert!(faults.iter().any(|f| matches!(f, Fault::Tampered { .. })));
    assert!(faults.iter().any(|f| matches!(f, Fault::UnknownKey { .. })));
}

#[test]
fn missing_anchors_show() {
    let mut anchorer = Anchorer { key: SecretKey::generate(), head: Head::genesis() };
    let lines: Vec<_> = (0..3).map(|_| anchorer.anchor(vec![])).collect();
    assert!(check(&lines, &anchorer.trust()).is_sound());
    let faults = check(&[lines[0].clone(), lines[2].clone()], &anchorer.trust()).faults;
    assert_eq!(faults, [Fault::AnchorMissing { from: 2, to: 2 }]);
    let mut forked = Anchorer { key: anchorer.key, head: Head { seq: 1, sha256: "11".repeat(32) } };
    let lines = [lines[0].clone(), forked.anchor(vec![])];
    assert_eq!(check(&lines, &forked.trust()).faults, [Fault::AnchorForked { seq: 2 }]);
}

#[test]
fn faults_are_bounded_and_counted() {
    let text = "{}\n".repeat(export::MAX_FAULTS + 5);
    let summary = verify_export(text.lines(), &Trust::default());
    assert_eq!((summary.faults.len(), summary.fault_count), (export::MAX_FAULTS, export::MAX_FAULTS as u64 + 5));
}

proptest! {
    /// One changed byte anywhere in a receipt's line is found, or it did not matter.
    #[test]
    fn no_changed_byte_passes(which in 0usize..12, at in 0usize..2_000, xor in 1u8..=127) {
        let (lines, trust, _) = honest();
        let mut text: Vec<String> = lines.iter().map(|l| serde_json::to_string(l).unwrap_or_default()).collect();
        let receipts: Vec<usize> = (0..text.len()).filter(|i| text[*i].starts_with(r#"{"receipt""#)).collect();
        let target = receipts[which];
        let mut bytes = text[target].clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= xor;
        if let Ok(changed) = String::from_utf8(bytes) {
            text[target] = changed;
            let summary = verify_export(text.iter().map(String::as_str), &trust);
            prop_assert!(!summary.is_sound(), "{}", text[target]);
        }
    }
}
