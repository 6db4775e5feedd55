//! How many connections may be no sessions yet, and how many of them are at work at once.
//! Those beyond are refused before they cost anything: a fleet that comes back all together
//! is let in as fast as handshakes can be made, and what is begun is finished in time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::addresses::{self, Addresses, Limits, TooMuch};

/// Connections that are no sessions yet; most of them wait for their turn.
pub const PLACES: usize = 1_024;
/// A turn comes in this time or not at all: whoever waited longer would not be done in time.
pub const TURN_WITHIN: Duration = Duration::from_secs(3);
/// A turn is over after this time, done or not: a peer that stalls holds up nobody.
pub const TURN: Duration = Duration::from_secs(1);

/// Clones share everything.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    addresses: Addresses,
    waiting: Arc<AtomicUsize>,
}

/// Why a connection is not let in now. It may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("there are as many connections without a session as there may be")]
    Places,
    #[error("the connection's turn did not come in time")]
    Turn,
    #[error(transparent)]
    Address(#[from] TooMuch),
}

impl Full {
    /// For metrics.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Places => "handshakes",
            Self::Turn => "turn",
            Self::Address(TooMuch::Often(_)) => "address-rate",
            Self::Address(TooMuch::AtOnce) => "address-handshakes",
        }
    }

    /// When it is worth while to come again, in seconds.
    #[must_use]
    pub fn retry_after_secs(self) -> u32 {
        match self {
            Self::Address(TooMuch::Often(wait)) => u32::try_from(wait.as_secs()).unwrap_or(60).clamp(1, 60) + 1,
            _ => 5,
        }
    }
}

/// One of the [`PLACES`].
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit);

/// The right to make a handshake now.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit);

impl Admission {
    /// `turns` handshakes at work at once; `limits` for each address.
    #[must_use]
    pub fn new(turns: u32, limits: Limits) -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            turns: Arc::new(Semaphore::new(turns.max(1) as usize)),
            addresses: Addresses::new(limits),
            waiting: Arc::default(),
        }
    }

    /// A place, if there is one.
    ///
    /// # Errors
    /// [`Full::Places`].
    pub fn place(&self) -> Result<Place, Full> {
        self.places.clone().try_acquire_owned().map(Place).map_err(|_| Full::Places)
    }

    /// A place among those of its address, now that the address is known.
    ///
    /// # Errors
    /// [`Full::Address`].
    pub fn of_address(&self, address: IpAddr) -> Result<addresses::Place, Full> {
        Ok(self.addresses.enter(address, Instant::now())?)
    }

    /// Wait for a turn.
    ///
    /// # Errors
    /// [`Full::Turn`] after [`TURN_WITHIN`].
    pub async fn turn(&self) -> Result<Turn, Full> {
        let _waiting = Waiting::new(&self.waiting);
        match tokio::time::timeout(TURN_WITHIN, self.turns.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            _ => Err(Full::Turn),
        }
    }

    /// Connections that are no sessions yet.
    #[must_use]
    pub fn underway(&self) -> usize {
        PLACES - self.places.available_permits()
    }

    /// Those of them that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

impl Turn {
    /// Do `work`, but give the turn back after [`TURN`].
    pub async fn spend<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        match tokio::time::timeout(TURN, work.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                drop(self);
                work.await
            }
        }
    }
}

/// Counts one who waits, also when he gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(turns: u32) -> Admission {
        Admission::new(turns, Limits { rate: 10, burst: 10, places: 10 })
    }

    #[test]
    fn places_are_bounded() {
        let admission = admission(1);
        let held: Vec<_> = (0..PLACES).map(|_| admission.place().unwrap()).collect();
        assert_eq!(admission.place().unwrap_err(), Full::Places);
        assert_eq!(admission.underway(), PLACES);
        drop(held);
        assert!(admission.place().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_in_time_or_not_at_all() {
        let admission = admission(1);
        let first = admission.turn().await.unwrap();
        let began = Instant::now();
        assert_eq!(admission.turn().await.unwrap_err(), Full::Turn);
        assert_eq!(began.elapsed(), TURN_WITHIN);
        let (second, ()) = tokio::join!(admission.turn(), async { drop(first) });
        assert!(second.is_ok());
        assert_eq!(admission.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stalls_gives_its_turn_back() {
        let admission = admission(1);
        let turn = admission.turn().await.unwrap();
        let stalled = turn.spend(tokio::time::sleep(TURN * 5));
        let next = async {
            let began = Instant::now();
            admission.turn().await.unwrap();
            began.elapsed()
        };
        let ((), waited) = tokio::join!(stalled, next);
        assert_eq!(waited, TURN);
    }
}
