//! From a request's headers to a [`Permit`]: token, principal, role. Every refusal is
//! logged, counted and audited; of callers without a valid token only so many a second
//! are audited one by one, so that guessing can't fill the audit log.

use axum::http::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::action::Action;
use super::cache::Cache;
use super::permit::{Forbidden, Permit, Principal};
use super::token::{TokenError, TokenHash};
use crate::clock::Clock;
use crate::cluster::rate::Limit;
use crate::cluster::{Cluster, Event};
use crate::store::model::{AuditEntry, Decision};
use crate::store::{Store, StoreError};

/// Refusals of callers without a valid token that are audited one by one each second.
const ANONYMOUS_A_SECOND: u32 = 10;

/// Clones share their state.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    cache: Cache,
    limit: Limit,
    cluster: Cluster,
    /// As of the cluster's count, what is remembered of tokens.
    tokens: AtomicU64,
    anonymous: Mutex<Anonymous>,
    refusals: Family<Reason, Counter>,
}

/// The label of the count of refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// `unauthenticated`, `forbidden`, `rate` or `address`.
    pub reason: &'static str,
}

#[derive(Debug)]
struct Anonymous {
    second: Instant,
    audited: u32,
    left_out: u64,
}

/// Why no permit was given.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Token(TokenError),
    #[error("the token is unknown, revoked or expired")]
    Unknown,
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("the token makes more requests than it may")]
    TooFast(Duration),
    #[error("the token can't be looked up")]
    Store(#[from] StoreError),
}

impl Guard {
    #[must_use]
    pub fn new(store: Store, clock: Clock, limit: Limit, cluster: Cluster) -> Self {
        let anonymous = Mutex::new(Anonymous { second: Instant::now(), audited: 0, left_out: 0 });
        let (cache, tokens, refusals) = (Cache::default(), AtomicU64::new(cluster.tokens_seen()), Family::default());
        Self(Arc::new(Inner { store, clock, cache, limit, cluster, tokens, anonymous, refusals }))
    }

    /// The count of refusals, for the metrics' registry.
    #[must_use]
    pub fn refusals(&self) -> Family<Reason, Counter> {
        self.0.refusals.clone()
    }

    /// A permit for `A` from the request's bearer token. `subject` is what was asked, for
    /// the audit log; `peer` is who, where no token says it.
    ///
    /// # Errors
    /// When there is no valid token, or its role may not.
    pub async fn authorize<A: Action>(
        &self,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
        subject: &str,
    ) -> Result<Permit<A>, Refusal> {
        let refusal = match self.identify(headers).await {
            Ok(principal) => {
                if let Err(wait) = self.0.limit.take(&principal.name).await {
                    self.0.refusals.get_or_create(&Reason { reason: "rate" }).inc();
                    tracing::debug!(actor = principal.name, action = A::NAME, subject, "too fast");
                    return Err(Refusal::TooFast(wait));
                }
                match Permit::grant(principal) {
                    Ok(permit) => return Ok(permit),
                    Err(forbidden) => Refusal::Forbidden(forbidden),
                }
            }
            Err(refusal) => refusal,
        };
        self.refused::<A>(&refusal, peer, subject).await;
        Err(refusal)
    }

    /// To be called after tokens were made or revoked.
    pub fn tokens_changed(&self) {
        self.0.cache.clear();
        self.0.cluster.publish(Event::Tokens {});
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let hash = TokenHash::from_headers(headers).map_err(Refusal::Token)?;
        let seen = self.0.cluster.tokens_seen();
        if self.0.tokens.swap(seen, Ordering::Relaxed) != seen {
            self.0.cache.clear();
        }
        if let Some(principal) = self.0.cache.get(&hash, Instant::now()) {
            return Ok(principal);
        }
        let token = self.0.store.token_by_hash(hash.as_bytes()).await?.ok_or(Refusal::Unknown)?;
        let left = match token.expires_ms.map(|at| at.saturating_sub(self.0.clock.now_ms())) {
            Some(0) => return Err(Refusal::Unknown),
            left => left.map(Duration::from_millis),
        };
        let principal = Principal { name: token.name, role: token.role };
        self.0.cache.put(hash, principal.clone(), left, Instant::now());
        Ok(principal)
    }

    async fn refused<A: Action>(&self, refusal: &Refusal, peer: Option<SocketAddr>, subject: &str) {
        let (actor, left_out) = match refusal {
            // A fault of ours, not a decision.
            Refusal::Store(_) | Refusal::TooFast(_) => return,
            Refusal::Forbidden(forbidden) => {
                self.0.refusals.get_or_create(&Reason { reason: "forbidden" }).inc();
                (forbidden.principal.name.clone(), 0)
            }
            Refusal::Token(_) | Refusal::Unknown => {
                self.0.refusals.get_or_create(&Reason { reason: "unauthenticated" }).inc();
                let peer = peer.map_or_else(|| "peer:unknown".to_owned(), |p| format!("peer:{}", p.ip()));
                match self.audit_anonymous() {
                    Some(left_out) => (peer, left_out),
                    None => return,
                }
            }
        };
        tracing::warn!(actor, action = A::NAME, subject, reason = %refusal, "refused");
        let more =
            if left_out > 0 { format!(" ({left_out} such refusals before were not recorded)") } else { String::new() };
        let entry = AuditEntry {
            at_ms: self.0.clock.now_ms(),
            actor,
            action: format!("api.{}", A::NAME),
            subject: subject.chars().take(200).collect(),
            decision: Decision::Refused,
            detail: format!("{refusal}{more}"),
        };
        self.0.store.audit(entry).await;
    }

    /// How many refusals were left out since the last that was recorded; `None` when this
    /// one is to be left out too.
    fn audit_anonymous(&self) -> Option<u64> {
        let mut anonymous = self.0.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
        if anonymous.second.elapsed() >= Duration::from_secs(1) {
            anonymous.second = Instant::now();
            anonymous.audited = 0;
        }
        if anonymous.audited >= ANONYMOUS_A_SECOND {
            anonymous.left_out += 1;
            return None;
        }
        anonymous.audited += 1;
        Some(std::mem::take(&mut anonymous.left_out))
    }
}
