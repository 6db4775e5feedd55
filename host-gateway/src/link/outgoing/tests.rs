//! What waits to be said: its order, its bounds, and reports in each session anew.

use super::*;
use viworks_protocol::outcome::{LogLine, Outcome};

fn id(n: u32) -> InvocationId {
    format!("inv-{n:032x}").parse().unwrap()
}

fn report(text: &str) -> Report {
    Report::refused(Outcome::Failed, "failed", text, 1)
}

type Kept = Arc<Mutex<Vec<(InvocationId, Arc<Report>)>>>;

fn fresh() -> (tempfile::TempDir, Journal, Kept, Outgoing) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let kept = Kept::default();
    let given = kept.clone();
    let outgoing = Outgoing::new(journal.clone(), Box::new(move || given.lock().unwrap().clone()));
    (dir, journal, kept, outgoing)
}

async fn next(outgoing: &Outgoing) -> GatewayFrame {
    let frame = tokio::time::timeout(Duration::from_secs(5), outgoing.next()).await.unwrap();
    serde_json::from_str(&frame).unwrap()
}

async fn next_result(outgoing: &Outgoing) -> InvocationId {
    match next(outgoing).await {
        GatewayFrame::Result { invocation, .. } => invocation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_session_begins_with_all_reports_that_are_kept() {
    let (_dir, journal, kept, outgoing) = fresh();
    journal.finish(&id(1), &report("a")).await.unwrap();
    kept.lock().unwrap().push((id(2), Arc::new(report("b"))));
    for _ in 0..2 {
        outgoing.begin();
        assert_eq!([next_result(&outgoing).await, next_result(&outgoing).await], [id(2), id(1)]);
        outgoing.end();
    }
    outgoing.begin();
    journal.acknowledge(&id(1)).await.unwrap();
    kept.lock().unwrap().clear();
    outgoing.report(id(3), Arc::new(report("c")));
    assert_eq!(next_result(&outgoing).await, id(2), "it was kept when the session began");
    assert_eq!(next_result(&outgoing).await, id(3));
    let more = tokio::time::timeout(Duration::from_millis(50), outgoing.next()).await;
    assert!(more.is_err() && outgoing.is_empty());
}

#[tokio::test]
async fn what_finds_no_room_comes_from_where_it_is_kept() {
    let (_dir, journal, _kept, outgoing) = fresh();
    outgoing.begin();
    let large = Arc::new(report(&"x".repeat(100)));
    let count = MAX_REPORTS as u32 + 40;
    for n in 0..count {
        journal.finish(&id(n), &large).await.unwrap();
        outgoing.report(id(n), large.clone());
    }
    assert_eq!(outgoing.lock().reports.len(), MAX_REPORTS);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count as usize {
        seen.insert(next_result(&outgoing).await);
    }
}

#[tokio::test]
async fn the_urgent_goes_first_and_what_is_said_without_a_session_is_void() {
    let (_dir, _journal, _kept, outgoing) = fresh();
    outgoing.pong(1);
    outgoing.accepted(id(1));
    outgoing.begin();
    outgoing.progress(id(2), 1, None, String::new());
    outgoing.report(id(3), Arc::new(report("r")));
    outgoing.pong(2);
    assert!(matches!(next(&outgoing).await, GatewayFrame::Pong { nonce: 2 }));
    assert_eq!(next_result(&outgoing).await, id(3));
    assert!(matches!(next(&outgoing).await, GatewayFrame::Progress { done: 1, .. }));
    for nonce in 0..2 * MAX_URGENT as u64 {
        outgoing.pong(nonce);
    }
    assert_eq!(outgoing.lock().urgent.len(), MAX_URGENT);
}

#[test]
fn an_oversize_result_is_cut_until_it_fits() {
    let line = LogLine { level: "info".into(), message: "\u{1}".repeat(300_000) };
    let long = Report { log: vec![line; 2], ..report("kept") };
    let frame = report_frame(id(1), &long);
    assert!(frame.len() <= MAX_FRAME && frame.contains("kept") && frame.contains("\"log_truncated\":true"));
    let giant = serde_json::value::to_raw_value(&"x".repeat(MAX_FRAME)).unwrap();
    let frame = report_frame(id(1), &Report { result: Some(giant), failure: None, ..report("") });
    assert!(frame.len() <= MAX_FRAME && frame.contains("\"code\":\"limit\""));
}
