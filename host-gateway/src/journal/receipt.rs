//! The end of an invocation: its receipt takes the next place in the chain, and report,
//! receipt and the chain's new head are written in one transaction, or none of them.

use rusqlite::Error::ToSqlConversionFailure as Unwritable;
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::Report;
use viworks_protocol::receipt;
use viworks_signing::dsse::Envelope;

use super::store::Store;
use crate::receipts::{ReceiptKey, Used};

/// Within the transaction that is open. May run again after one that failed.
pub(super) fn finish(
    store: &Store,
    key: Option<&ReceiptKey>,
    invocation: &InvocationId,
    report: &mut Report,
    used: &Used,
    forget_after_ms: u64,
) -> rusqlite::Result<Option<Box<Envelope>>> {
    let draft = store.draft(invocation)?;
    let mut head = None;
    report.receipt = None;
    if let (Some(key), Some(mut receipt)) = (key, draft) {
        receipt.describe(report);
        used.fill(&mut receipt);
        receipt.follow(&store.head()?);
        let (envelope, next) = receipt::sign(&receipt, key.secret()).map_err(|e| Unwritable(e.into()))?;
        report.receipt = Some(Box::new(envelope));
        head = Some(next);
    }
    let json = serde_json::to_string(report).map_err(|e| Unwritable(e.into()))?;
    if !store.finish(invocation, &json, forget_after_ms)? {
        return Ok(None);
    }
    if let Some(head) = head {
        store.set_head(&head)?;
    }
    Ok(report.receipt.clone())
}
