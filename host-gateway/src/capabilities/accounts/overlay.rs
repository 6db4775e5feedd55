//! What a plan so far has done to accounts, over what the files say.

use super::change::Change;
use super::database::Database;
use crate::effects::Effect;

/// The planned changes of accounts, in order.
#[derive(Debug)]
pub(super) struct Overlay<'a>(Vec<&'a Change>);

impl<'a> Overlay<'a> {
    pub(super) fn of(planned: &'a [Effect]) -> Self {
        let changes = planned.iter().filter_map(|effect| match effect {
            Effect::Accounts(change) => Some(change),
            _ => None,
        });
        Self(changes.collect())
    }

    pub(super) fn replay(&self, database: &mut Database) {
        self.0.iter().for_each(|change| database.replay(change));
    }

    /// Whether something would be at this path; `None` where the plan says nothing.
    pub(super) fn home(&self, path: &str) -> Option<bool> {
        self.0.iter().rev().find_map(|change| match change {
            Change::Create(new) if new.home() == path => Some(true),
            Change::Remove { record: Some(record), .. } if record.home == path && record.quarantined.is_some() => {
                Some(false)
            }
            Change::Restore(record) if record.home == path && record.quarantined.is_some() => Some(true),
            _ => None,
        })
    }

    /// Whether a home would wait at this place in the quarantine.
    pub(super) fn quarantined(&self, place: &str) -> Option<bool> {
        self.0.iter().rev().find_map(|change| match change {
            Change::Remove { record: Some(record), .. } if record.quarantined.as_deref() == Some(place) => Some(true),
            Change::Restore(record) if record.quarantined.as_deref() == Some(place) => Some(false),
            _ => None,
        })
    }

    /// The account's keys, as text; `None` where the plan says nothing.
    pub(super) fn keys(&self, name: &str) -> Option<Option<String>> {
        self.0.iter().rev().find_map(|change| match change {
            Change::Create(new) if new.name == name => {
                Some((!new.ssh_keys.is_empty()).then(|| super::home::file_of(&new.ssh_keys)))
            }
            Change::SetSshKeys { name: whose, after, .. } if whose == name => Some(after.clone()),
            _ => None,
        })
    }

    /// Uids that homes would have which no account has any more.
    pub(super) fn uids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|change| match change {
            Change::Remove { uid, .. } => Some(*uid),
            _ => None,
        })
    }
}
