//! After all those kills: the receipts that a gateway wrote are one chain without a gap,
//! signed by the one key that it made at its first start.

use std::io::{Error, Result};

use viworks_protocol::outcome::Report;
use viworks_protocol::receipt::export::{Line, Trust, verify_export};
use viworks_signing::keys::SecretKey;

use crate::say;
use crate::site::Site;

pub fn check(site: &Site) -> Result<()> {
    let pem = std::fs::read_to_string(site.path("state/receipt.key.pem"))?;
    let key = SecretKey::from_pem(&pem).map_err(Error::other)?;
    let db = rusqlite::Connection::open(site.path("state/journal.db")).map_err(Error::other)?;
    let mut reports = db.prepare("SELECT report FROM invocation WHERE report IS NOT NULL").map_err(Error::other)?;
    let rows = reports.query_map([], |row| row.get::<_, String>(0)).map_err(Error::other)?;
    let mut envelopes = Vec::new();
    for row in rows {
        let report: Report = serde_json::from_str(&row.map_err(Error::other)?)?;
        let receipt = report.receipt.as_deref().cloned();
        let mut bare = report;
        bare.receipt = None;
        envelopes.extend(receipt.map(|receipt| (receipt, bare)));
    }
    let agent = site.agent.parse().map_err(Error::other)?;
    let mut lines = Vec::new();
    for (envelope, report) in &envelopes {
        let verified = viworks_protocol::receipt::verify(envelope, &agent, &[key.public()]).map_err(Error::other)?;
        if !verified.receipt().tells_of(report) {
            return Err(Error::other(format!("a receipt does not tell of its report: {report:?}")));
        }
        lines.push((verified.receipt().seq, serde_json::to_string(&Line::Receipt(envelope.clone()))?));
    }
    lines.sort();
    let trust = Trust { agents: vec![(agent, key.public())], ..Trust::default() };
    let summary = verify_export(lines.iter().map(|(_, line)| line.as_str()), &trust);
    if !summary.is_sound() || summary.receipts == 0 {
        return Err(Error::other(format!("receipts of {}: {summary:?}", site.agent)));
    }
    say(&format!("{}: {} receipts in one chain", site.agent, summary.receipts));
    Ok(())
}
