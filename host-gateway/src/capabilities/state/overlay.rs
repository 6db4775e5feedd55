//! What a plan so far has put into a plugin's state, over what is there.

use std::collections::BTreeMap;

use super::Change;
use super::store::Size;
use crate::effects::Effect;

/// The last planned value of each key; `None` is deleted.
#[derive(Debug, Default)]
pub(super) struct Overlay<'a>(BTreeMap<&'a str, Option<&'a str>>);

impl<'a> Overlay<'a> {
    pub(super) fn of(planned: &'a [Effect], plugin: &str) -> Self {
        let changes = planned.iter().filter_map(|effect| match effect {
            Effect::State(change) if change.place().0 == plugin => Some((change.place().1, change.after())),
            _ => None,
        });
        Self(changes.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The planned value; `None` where the plan says nothing.
    pub(super) fn value(&self, key: &str) -> Option<Option<String>> {
        self.0.get(key).map(|value| value.map(str::to_owned))
    }

    /// Sorted, as the store's are.
    pub(super) fn keys(&self, there: Vec<String>) -> Vec<String> {
        let kept = there.into_iter().filter(|key| !self.0.contains_key(key.as_str()));
        let put = self.0.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| (*key).to_owned());
        let mut keys: Vec<_> = kept.chain(put).collect();
        keys.sort();
        keys
    }

    pub(super) fn size_without(&self, key: &str, there: Vec<(String, u64)>) -> Size {
        let kept = there.into_iter().filter(|(k, _)| !self.0.contains_key(k.as_str()));
        let put = self.0.iter().filter_map(|(k, v)| Some(((*k).to_owned(), (k.len() + (*v)?.len()) as u64)));
        let others = kept.chain(put).filter(|(k, _)| k != key);
        others.fold(Size { keys: 0, bytes: 0 }, |all, (_, bytes)| Size { keys: all.keys + 1, bytes: all.bytes + bytes })
    }
}

impl Change {
    #[cfg(test)]
    pub(crate) fn set(plugin: &str, key: &str, value: &str) -> Self {
        let expect = super::Expect::Anything;
        Self::Set { plugin: plugin.into(), key: key.into(), value: value.into(), expect, bound: None }
    }
}
