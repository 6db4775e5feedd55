//! `invocation`: what the running invocation is, as guests may know it. Reads only, always
//! granted.

use std::time::Instant;

use super::Call;
use super::wit::viworks::gateway::invocation::{Context, Host, Mode};

impl Host for Call {
    async fn get_context(&mut self) -> wasmtime::Result<Context> {
        self.enter()?;
        let remaining = self.facts.deadline.saturating_duration_since(Instant::now());
        Ok(Context {
            id: self.facts.invocation.clone(),
            command: self.facts.command.clone(),
            agent: self.facts.agent.clone(),
            caller: self.facts.caller.clone(),
            verb: self.facts.verb.clone(),
            mode: if self.recorder.is_plan() { Mode::Plan } else { Mode::Apply },
            remaining_ms: u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX),
        })
    }
}
