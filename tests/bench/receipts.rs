//! Verifying an export of 100,000 receipts, on one core, beside the bare signatures.

use std::io::{Error, Result};
use std::time::Instant;

use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::outcome::{EffectReport, EffectState, Outcome, Report};
use viworks_protocol::receipt::export::{Line, Trust, verify_export};
use viworks_protocol::receipt::{self, Head, Receipt};
use viworks_signing::keys::SecretKey;

use crate::report::{Series, Table};

const RECEIPTS: u64 = 100_000;

pub fn verify(table: &mut Table) -> Result<()> {
    let key = SecretKey::generate();
    let agent: AgentId = "web-01".parse().map_err(Error::other)?;
    let effect = EffectReport {
        kind: "accounts.create".into(),
        summary: "create account deploy (uid 20001)".into(),
        state: EffectState::Applied,
        diff: vec![],
        irreversible: false,
    };
    let mut report = Report::refused(Outcome::Succeeded, "", "", 1);
    (report.failure, report.effects) = (None, vec![effect]);
    let (mut head, mut lines, mut signed) = (Head::genesis(), Vec::new(), Vec::new());
    for n in 0..RECEIPTS {
        let command = CommandId::new(n);
        let invocation = InvocationId::derive(&command, &[7; 32], &agent);
        let mut receipt = Receipt {
            warrant_sha256: "ab".repeat(32),
            caller: "alice".into(),
            verb: "add_user".into(),
            plugin: "accounts".into(),
            digest: "cd".repeat(32),
            args_sha256: "ef".repeat(32),
            granted: vec!["accounts".into()],
            ..Receipt::draft(&agent, command, invocation)
        };
        receipt.describe(&report);
        receipt.follow(&head);
        let (envelope, next) = receipt::sign(&receipt, &key)?;
        head = next;
        if n < 10_000 {
            signed.push(key.sign(head.sha256.as_bytes()));
        }
        lines.push(serde_json::to_string(&Line::Receipt(envelope))?);
    }
    let began = Instant::now();
    let public = key.public();
    // Refused, all of them, and as much work as if they were not.
    let refused = signed.iter().filter(|signature| !public.verify(b"another message", signature)).count();
    let bare = began.elapsed().as_secs_f64() / 10_000.0 * RECEIPTS as f64;

    let trust = Trust { agents: vec![(agent, key.public())], ..Trust::default() };
    let began = Instant::now();
    let summary = verify_export(lines.iter().map(String::as_str), &trust);
    let took = began.elapsed().as_secs_f64();
    if !summary.is_sound() || summary.receipts != RECEIPTS || refused != signed.len() {
        return Err(Error::other(format!("the receipts do not verify: {:?}", summary.faults)));
    }
    let baseline = ("bare Ed25519 signatures", &Series::one(bare));
    table.add("verify_receipts_100000", "s", &Series::one(took), baseline, Some(("at most 10 s", |v, _| v <= 10.0)));
    Ok(())
}
