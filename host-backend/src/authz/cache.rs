//! Principals by token hash, remembered for seconds so that a busy token costs no query.
//! Bounded; unknown tokens are not remembered, so guessing can't push real ones out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::permit::Principal;
use super::token::TokenHash;

/// How long a revoked token may still be taken by another process.
pub const REMEMBER: Duration = Duration::from_secs(5);
const ENTRIES: usize = 1_024;

#[derive(Debug, Default)]
pub struct Cache {
    entries: Mutex<HashMap<TokenHash, (Instant, Principal)>>,
}

impl Cache {
    #[must_use]
    pub fn get(&self, hash: &TokenHash, now: Instant) -> Option<Principal> {
        self.lock().get(hash).filter(|(until, _)| now < *until).map(|(_, p)| p.clone())
    }

    /// `valid_for` is what is left of the token's own validity, if it ends.
    pub fn put(&self, hash: TokenHash, principal: Principal, valid_for: Option<Duration>, now: Instant) {
        let mut entries = self.lock();
        if entries.len() >= ENTRIES {
            entries.retain(|_, (until, _)| now < *until);
        }
        if entries.len() < ENTRIES {
            entries.insert(hash, (now + valid_for.map_or(REMEMBER, |left| left.min(REMEMBER)), principal));
        }
    }

    /// After tokens changed.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, (Instant, Principal)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::NewToken;
    use super::*;
    use crate::store::model::Role;

    fn principal() -> Principal {
        Principal { name: "alice".into(), role: Role::Viewer }
    }

    #[test]
    fn forgets_after_seconds_and_when_the_token_ends() {
        let (cache, now) = (Cache::default(), Instant::now());
        let (long, short) = (NewToken::generate().unwrap().hash(), NewToken::generate().unwrap().hash());
        cache.put(long, principal(), None, now);
        cache.put(short, principal(), Some(Duration::from_secs(1)), now);
        assert!(cache.get(&long, now).is_some() && cache.get(&short, now).is_some());
        let later = now + Duration::from_secs(1);
        assert!(cache.get(&long, later).is_some() && cache.get(&short, later).is_none());
        assert!(cache.get(&long, now + REMEMBER).is_none());
    }

    #[test]
    fn is_bounded_and_makes_room_of_what_is_over() {
        let (cache, now) = (Cache::default(), Instant::now());
        for _ in 0..ENTRIES + 10 {
            cache.put(NewToken::generate().unwrap().hash(), principal(), None, now);
        }
        assert_eq!(cache.lock().len(), ENTRIES);
        let new = NewToken::generate().unwrap().hash();
        cache.put(new, principal(), None, now + REMEMBER);
        assert!(cache.get(&new, now + REMEMBER).is_some());
        assert_eq!(cache.lock().len(), 1);
    }
}
