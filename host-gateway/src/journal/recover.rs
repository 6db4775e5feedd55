//! After a crash: what was admitted and never finished gets the report that can be given
//! truthfully. Nothing is run again.

use viworks_protocol::outcome::{EffectReport, EffectState, Outcome, Report};

use super::Recovered;
use super::store::Store;

pub(super) fn recover(store: &Store, now_ms: u64) -> rusqlite::Result<Recovered> {
    let mut recovered = Recovered::default();
    while let Some(id) = store.unfinished()? {
        let effects = store.effects(&id)?;
        let report = if effects.is_empty() {
            recovered.interrupted += 1;
            Report::refused(Outcome::Failed, "interrupted", "the gateway stopped before anything was changed", now_ms)
        } else {
            recovered.unknown += 1;
            let message = "the gateway stopped while the verb ran; its effects are listed as far as they are known";
            let effects = effects.into_iter().map(|(kind, summary, state)| {
                let state = match state {
                    1 => EffectState::Applied,
                    2 => EffectState::Failed,
                    _ => EffectState::Unknown,
                };
                EffectReport { kind, summary, state, diff: Vec::new(), irreversible: false }
            });
            let mut report = Report::refused(Outcome::Unknown, "interrupted", message, now_ms);
            report.effects = effects.collect();
            report
        };
        let json = serde_json::to_string(&report).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        let invocation = id.parse().map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        store.finish(&invocation, &json, now_ms)?;
    }
    Ok(recovered)
}
