//! What plugins can ask of `system`, and its gate. Everything is a read; only the names of
//! services have a scope.

use std::sync::Arc;

use viworks_signing::grant::{Granted, SystemScope};

use super::super::Call;
use super::super::wit::viworks::gateway::system as wit;
use super::super::wit::viworks::gateway::types;
use super::{network, services};
use crate::failure::Failure;

type Answer<T> = wasmtime::Result<Result<T, types::Failure>>;

impl wit::Host for Call {
    async fn get_host(&mut self) -> Answer<wit::HostInfo> {
        self.enter()?;
        Ok(granted(self).and_then(|_| self.host.system.host()).map_err(Into::into))
    }

    async fn get_cpu(&mut self) -> Answer<wit::Cpu> {
        self.enter()?;
        let Err(refused) = granted(self) else { return Ok(self.host.system.cpu.sample().await.map_err(Into::into)) };
        Ok(Err(refused.into()))
    }

    async fn get_memory(&mut self) -> Answer<wit::Memory> {
        self.enter()?;
        Ok(granted(self).and_then(|_| self.host.system.memory()).map_err(Into::into))
    }

    async fn get_disks(&mut self) -> Answer<Vec<wit::Disk>> {
        self.enter()?;
        let Err(refused) = granted(self) else { return Ok(self.host.system.disks.list().await.map_err(Into::into)) };
        Ok(Err(refused.into()))
    }

    async fn get_load(&mut self) -> Answer<wit::LoadAverage> {
        self.enter()?;
        Ok(granted(self).and_then(|_| self.host.system.load()).map_err(Into::into))
    }

    async fn get_network(&mut self) -> Answer<Vec<wit::Network>> {
        self.enter()?;
        Ok(granted(self).and_then(|_| network::list()).map_err(Into::into))
    }

    async fn get_services(&mut self, names: Vec<String>) -> Answer<Vec<wit::Service>> {
        self.enter()?;
        Ok(get_services(self, &names).await.map_err(Into::into))
    }
}

async fn get_services(call: &mut Call, names: &[String]) -> Result<Vec<wit::Service>, Failure> {
    let granted = granted(call)?;
    if names.len() > services::MAX_NAMES {
        return Err(Failure::InvalidArgument(format!("at most {} services at once", services::MAX_NAMES)));
    }
    for name in names {
        services::check(name)?;
        call.require(&granted, "system.services", || format!("service {name}"), |s| s.services.match_any(name))?;
    }
    services::states(names).await
}

fn granted(call: &Call) -> Result<Granted<SystemScope>, Failure> {
    let grant = Arc::clone(&call.grant);
    grant.system.clone().ok_or_else(|| Failure::Denied {
        capability: "system".into(),
        rule: "grant: system".into(),
        message: "system is not granted".into(),
    })
}
