//! `log`: lines of the guest's own for the invocation's log. Bounded by the release's
//! `logKib`; lines past it are dropped and the report says so. Always granted.

use super::Call;
use super::wit::viworks::gateway::log::{Host, Level};

impl Host for Call {
    async fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        self.log.write(level, &message);
        Ok(())
    }
}
