//! The verbs on login accounts. They decide what an operator gets to read; whether an
//! account may be touched at all is the gateway's to decide.

use exports::viworks::accounts::verbs::{Guest, Home};
use viworks_sdk::accounts::{self, Account, HomeFate, NewAccount};
use viworks_sdk::{Failure, OrNotFound as _, Result, info};

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
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
        groups: Option<Vec<String>>,
        ssh_keys: Option<Vec<String>>,
        comment: Option<String>,
        shell: Option<String>,
        password_hash: Option<String>,
        uid: Option<u32>,
    ) -> Result<Account> {
        if let Some(there) = accounts::find(&name)? {
            return Err(Failure::conflict(format!("account {name} exists already (uid {})", there.uid)));
        }
        let account = accounts::create(&NewAccount {
            name,
            comment,
            shell,
            groups: groups.unwrap_or_default(),
            ssh_keys: ssh_keys.unwrap_or_default(),
            password_hash,
            uid,
        })?;
        info!("created account {} (uid {})", account.name, account.uid);
        Ok(account)
    }

    fn delete_user(name: String, home: Option<Home>) -> Result<Account> {
        let there = find(&name)?;
        let fate = match home {
            None | Some(Home::Quarantine) => HomeFate::Quarantine,
            Some(Home::Keep) => HomeFate::Keep,
        };
        let account = accounts::remove(&name, &fate)?;
        info!("deleted account {name} (uid {})", there.uid);
        Ok(account)
    }

    fn lock_user(name: String) -> Result<Account> {
        let there = find(&name)?;
        if there.locked && there.expired {
            info!("account {name} was locked already");
            return Ok(there);
        }
        let account = accounts::lock(&name)?;
        info!("locked account {name}");
        Ok(account)
    }

    fn list_users(group: Option<String>) -> Result<Vec<Account>> {
        let mut all = accounts::list()?;
        if let Some(group) = group {
            all.retain(|account| account.groups.contains(&group));
        }
        Ok(all)
    }
}

fn find(name: &str) -> Result<Account> {
    accounts::find(name)?.or_not_found(|| format!("there is no account {name} within the grant"))
}

export!(Plugin);
