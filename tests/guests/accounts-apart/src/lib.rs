//! The next release of `accounts`, as a pipeline lets one slip through: new accounts are in
//! no group, locking traps, and deleting never ends.

use exports::viworks::accounts::verbs::{Guest, Home};
use viworks_sdk::accounts::{self, Account, NewAccount};
use viworks_sdk::{Failure, Result};

wit_bindgen::generate!({
    path: ["../../../wit", "../../../plugins/accounts/wit"],
    world: "viworks:accounts/plugin",
    with: {
        "viworks:gateway/types@1.0.0": viworks_sdk::types,
        "viworks:gateway/log@1.0.0": viworks_sdk::log,
        "viworks:gateway/accounts@1.0.0": viworks_sdk::accounts,
    },
});

struct Plugin;

impl Guest for Plugin {
    fn add_user(
        name: String,
        _groups: Option<Vec<String>>,
        ssh_keys: Option<Vec<String>>,
        comment: Option<String>,
        shell: Option<String>,
        password_hash: Option<String>,
        uid: Option<u32>,
    ) -> Result<Account> {
        if let Some(there) = accounts::find(&name)? {
            return Err(Failure::conflict(format!("account {name} exists already (uid {})", there.uid)));
        }
        let (groups, ssh_keys) = (Vec::new(), ssh_keys.unwrap_or_default());
        let account = accounts::create(&NewAccount { name, comment, shell, groups, ssh_keys, password_hash, uid })?;
        viworks_sdk::info!("created account {}", account.name);
        Ok(account)
    }

    fn delete_user(name: String, _home: Option<Home>) -> Result<Account> {
        let mut asked = 0_u32;
        while std::hint::black_box(&name).len() > 0 {
            asked = std::hint::black_box(asked.wrapping_add(1));
        }
        Err(Failure::failed(format!("after {asked}")))
    }

    fn lock_user(name: String) -> Result<Account> {
        panic!("can't lock {name}")
    }

    fn list_users(_group: Option<String>) -> Result<Vec<Account>> {
        accounts::list()
    }
}

export!(Plugin);
