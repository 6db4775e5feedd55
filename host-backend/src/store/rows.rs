//! Rows of any engine into model types. A row that does not parse is an error, never a
//! default.

use std::str::FromStr;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::AgentId;
use viworks_protocol::telemetry::Sample;
use viworks_protocol::warrant::Mode;

use super::StoreError;
use super::model::{
    Agent, Approver, AuditEntry, AuditRow, Command, Counts, IdempotencyKey, Invocation, Owner, Page, PageOf, Plugin,
    Resolution, Rollout, StoredSample, Token,
};
use super::receipt::{ChainEnd, StoredAnchor, StoredReceipt};

pub(super) trait RowExt {
    fn text(&self, name: &'static str) -> Result<String, StoreError>;
    fn maybe_text(&self, name: &'static str) -> Result<Option<String>, StoreError>;
    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, StoreError>;
    fn real(&self, name: &'static str) -> Result<f64, StoreError>;
    fn maybe_signed(&self, name: &'static str) -> Result<Option<i64>, StoreError>;

    fn maybe_number(&self, name: &'static str) -> Result<Option<u64>, StoreError> {
        self.maybe_signed(name)?.map(|value| unsigned(name, value)).transpose()
    }

    fn signed(&self, name: &'static str) -> Result<i64, StoreError> {
        self.maybe_signed(name)?.ok_or_else(|| StoreError::Corrupt { what: name, text: "null".to_owned() })
    }

    fn number(&self, name: &'static str) -> Result<u64, StoreError> {
        unsigned(name, self.signed(name)?)
    }

    fn small(&self, name: &'static str) -> Result<u32, StoreError> {
        let value = self.number(name)?;
        u32::try_from(value).map_err(|_| StoreError::Corrupt { what: name, text: value.to_string() })
    }

    fn flag(&self, name: &'static str) -> Result<bool, StoreError> {
        Ok(self.signed(name)? != 0)
    }

    fn parsed<T: FromStr>(&self, name: &'static str) -> Result<T, StoreError> {
        parse(name, self.text(name)?)
    }

    fn maybe_parsed<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        self.maybe_text(name)?.map(|text| parse(name, text)).transpose()
    }

    fn json_value<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<T, StoreError> {
        let text = self.text(name)?;
        serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: name, text })
    }
}

fn parse<T: FromStr>(what: &'static str, text: String) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what, text })
}

pub(super) fn unsigned(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt { what, text: value.to_string() })
}

pub(super) fn mode(text: String) -> Result<Mode, StoreError> {
    match text.as_str() {
        "apply" => Ok(Mode::Apply),
        "plan" => Ok(Mode::Plan),
        _ => Err(StoreError::Corrupt { what: "mode", text }),
    }
}

/// Columns of `commands` with their own names.
pub(super) fn command(row: &impl RowExt) -> Result<Command, StoreError> {
    Ok(Command {
        id: row.parsed("id")?,
        verb: row.text("verb")?,
        plugin: row.text("plugin")?,
        digest: row.text("digest")?,
        also: row.json_value("also")?,
        mode: mode(row.text("mode")?)?,
        args: row.text("args")?,
        caller: row.text("caller")?,
        state: row.parsed("state")?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.number("expires_ms")?,
        finished_ms: row.maybe_number("finished_ms")?,
        timeout_secs: row.small("timeout_secs")?,
        batch: row.maybe_number("batch")?.map(|b| u32::try_from(b).unwrap_or(u32::MAX)),
        targets: row.small("targets")?,
        targets_root: row.text("targets_root")?,
        idempotency_key: match (row.maybe_text("idempotency_key")?, row.maybe_text("request_sha256")?) {
            (Some(key), Some(request_sha256)) => Some(IdempotencyKey { key, request_sha256 }),
            _ => None,
        },
        plans: row.json_value("plans")?,
        undo_of: row.maybe_parsed("undo_of")?,
        undone_by: row.maybe_parsed("undone_by")?,
        approvals_needed: row.small("approvals_needed")?,
        approvals: row.json_value("approvals")?,
        cancel_requested: row.flag("cancel_requested")?,
        counts: Counts {
            queued: row.small("queued")?,
            sent: row.small("sent")?,
            running: row.small("running")?,
            succeeded: row.small("succeeded")?,
            failed: row.small("failed")?,
            denied: row.small("denied")?,
            cancelled: row.small("cancelled")?,
            expired: row.small("expired")?,
            unknown: row.small("unknown")?,
        },
        last_seq: row.number("last_seq")?,
    })
}

/// Columns of `invocations`, with the command's id as `command_id`.
pub(super) fn invocation(row: &impl RowExt) -> Result<Invocation, StoreError> {
    Ok(Invocation {
        id: row.parsed("id")?,
        command: row.parsed("command_id")?,
        agent: row.parsed("agent")?,
        ordinal: row.small("ordinal")?,
        state: row.parsed("state")?,
        seq: row.maybe_number("seq")?,
        report: row.maybe_text("report")?,
        sent_ms: row.maybe_number("sent_ms")?,
        started_ms: row.maybe_number("started_ms")?,
        finished_ms: row.maybe_number("finished_ms")?,
    })
}

/// Columns of `agents`, with its plugins as a JSON array.
pub(super) fn agent(row: &impl RowExt) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: row.parsed("id")?,
        online: row.flag("online")?,
        stale: row.flag("stale")?,
        site: row.maybe_text("site")?,
        labels: row.json_value("labels")?,
        version: row.text("version")?,
        boot: row.text("boot")?,
        max_concurrency: row.small("max_concurrency")?,
        first_seen_ms: row.number("first_seen_ms")?,
        last_seen_ms: row.number("last_seen_ms")?,
        plugins: row.json_value("plugins")?,
        owner: match (row.maybe_text("instance")?, row.maybe_text("session")?) {
            (Some(instance), Some(session)) => Some(Owner { instance, session }),
            _ => None,
        },
        receipts: match row.maybe_text("receipts")? {
            Some(text) => {
                Some(serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: "receipts", text })?)
            }
            None => None,
        },
    })
}

pub(super) fn plugin(row: &impl RowExt) -> Result<Plugin, StoreError> {
    Ok(Plugin {
        plugin: row.text("plugin")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        epoch: row.small("epoch")?,
        sequence: row.small("sequence")?,
        release: row.text("release")?,
        component_size: row.small("component_size")?,
        statements_size: row.small("statements_size")?,
        published_ms: row.number("published_ms")?,
        published_by: row.text("published_by")?,
        standing: row.parsed("standing")?,
        wanted: row.parsed("wanted")?,
        activated_ms: row.maybe_number("activated_ms")?,
        note: row.text("note")?,
    })
}

pub(super) fn token(row: &impl RowExt) -> Result<Token, StoreError> {
    let sha256 = row.bytes("sha256")?;
    Ok(Token {
        name: row.text("name")?,
        role: row.parsed("role")?,
        sha256: sha256
            .try_into()
            .map_err(|b: Vec<u8>| StoreError::Corrupt { what: "sha256", text: format!("{} bytes", b.len()) })?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.maybe_number("expires_ms")?,
    })
}

pub(super) fn approver(row: &impl RowExt) -> Result<Approver, StoreError> {
    Ok(Approver {
        key: row.text("key_id")?,
        operator: row.text("operator")?,
        pem: row.text("pem")?,
        created_ms: row.number("created_ms")?,
        created_by: row.text("created_by")?,
    })
}

pub(super) fn audit(row: &impl RowExt) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        seq: row.number("seq")?,
        entry: AuditEntry {
            at_ms: row.number("at_ms")?,
            actor: row.text("actor")?,
            action: row.text("action")?,
            subject: row.text("subject")?,
            decision: row.parsed("decision")?,
            detail: row.text("detail")?,
        },
    })
}

pub(super) fn receipt(row: &impl RowExt) -> Result<StoredReceipt, StoreError> {
    Ok(StoredReceipt {
        agent: row.parsed("agent")?,
        chain: row.text("chain")?,
        boot: row.maybe_text("boot")?,
        seq: row.number("seq")?,
        sha256: row.text("sha256")?,
        command: row.parsed("command")?,
        invocation: row.parsed("invocation")?,
        at_ms: row.number("at_ms")?,
        fault: row.maybe_text("fault")?,
        envelope: row.text("envelope")?,
    })
}

pub(super) fn chain_end(row: &impl RowExt) -> Result<ChainEnd, StoreError> {
    Ok(ChainEnd {
        agent: row.parsed("agent")?,
        chain: row.text("chain")?,
        seq: row.number("seq")?,
        sha256: row.text("sha256")?,
    })
}

pub(super) fn anchor(row: &impl RowExt) -> Result<StoredAnchor, StoreError> {
    Ok(StoredAnchor {
        seq: row.number("seq")?,
        sha256: row.text("sha256")?,
        at_ms: row.number("at_ms")?,
        heads: row.small("heads")?,
        envelope: row.text("envelope")?,
    })
}

/// With its number.
pub(super) fn rollout(row: &impl RowExt) -> Result<(u64, Rollout), StoreError> {
    let of = Rollout {
        id: row.text("id")?,
        plugin: row.text("plugin")?,
        digest: row.text("digest")?,
        former: row.text("former")?,
        spec: row.text("spec")?,
        state: row.parsed("state")?,
        stage: row.small("stage")?,
        soaking_ms: row.maybe_number("soaking_ms")?,
        everyone: row.flag("everyone")?,
        reason: row.text("reason")?,
        created_ms: row.number("created_ms")?,
        created_by: row.text("created_by")?,
        changed_ms: row.number("changed_ms")?,
        finished_ms: row.maybe_number("finished_ms")?,
    };
    Ok((row.number("n")?, of))
}

/// What an agent has of a plugin.
pub(super) fn holder(row: &impl RowExt) -> Result<(AgentId, PluginStatus), StoreError> {
    let state = row.text("state")?;
    let state =
        serde_json::from_value(state.clone().into()).map_err(|_| StoreError::Corrupt { what: "state", text: state })?;
    let status = PluginStatus {
        plugin: row.text("plugin")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        state,
        detail: row.maybe_text("detail")?,
        shadow: false,
    };
    Ok((row.parsed("agent")?, status))
}

/// Sums of an hour become means; the rest is the latest sample's.
pub(super) fn sample(row: &impl RowExt, resolution: Resolution) -> Result<StoredSample, StoreError> {
    let samples = row.small("samples")?.max(1);
    let mut sample: Sample = row.json_value("sample")?;
    if resolution == Resolution::Hour {
        let mean = |name| Ok::<_, StoreError>(row.real(name)? / f64::from(samples));
        sample.cpu_percent = mean("cpu_percent")? as f32;
        sample.load_one = mean("load_one")? as f32;
        sample.load_five = mean("load_five")? as f32;
        sample.load_fifteen = mean("load_fifteen")? as f32;
        sample.memory_used_mib = mean("memory_used_mib")? as u32;
        sample.swap_used_mib = mean("swap_used_mib")? as u32;
        sample.disk_used_percent = mean("disk_used_percent")? as f32;
    }
    Ok(StoredSample { at_ms: row.number("at_ms")?, samples, sample })
}

/// A page of the rows that were asked for with one more than the page's limit.
pub(super) fn page<R, T>(
    rows: &[R],
    of: &PageOf,
    read: impl Fn(&R) -> Result<T, StoreError>,
    cursor: impl Fn(&T) -> String,
) -> Result<Page<T>, StoreError> {
    let limit = of.limit() as usize;
    let items: Vec<T> = rows.iter().take(limit).map(read).collect::<Result<_, _>>()?;
    let next = if rows.len() > limit { items.last().map(cursor) } else { None };
    Ok(Page { items, next })
}

/// A numeric cursor; `None` without one.
pub(super) fn number_cursor(of: &PageOf) -> Result<Option<i64>, StoreError> {
    of.after.as_deref().map(|c| c.parse().map_err(|_| StoreError::Cursor(c.to_owned()))).transpose()
}

/// How many rows to ask for.
pub(super) fn limit(of: &PageOf) -> i64 {
    i64::from(of.limit()) + 1
}
