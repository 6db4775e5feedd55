//! An effect, asked of what the host owner's policy grants: each capability judges its own
//! changes. Refuses changes of what is not the host's.

use viworks_signing::grant::Grant;

use crate::effects::Effect;
use crate::failure::Failure;
use crate::host::Host;

/// # Errors
/// `denied` with the rule, `invalid-argument`, or that the host can't be asked.
pub(crate) async fn judge(effect: &Effect, grant: &Grant, host: &Host) -> Result<(), Failure> {
    match effect {
        Effect::Accounts(change) => host.accounts.judge(change, grant).await,
        Effect::Vpn(change) => host.vpn.judge(change, grant),
        Effect::Containers(change) => host.containers.judge(change, grant).await,
        Effect::Scripts(change) => host.scripts.judge(change, grant),
        Effect::State(_) => Err(Failure::InvalidArgument("what plugins keep is the gateway's own".into())),
    }
}
