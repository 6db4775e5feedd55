//! How much one address may ask for: so many times a second on average, and so much at
//! once. Bounded: what was not seen for longest is forgotten first, which lets it begin anew.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Addresses in each of two generations.
const GENERATION: usize = 32_768;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A second, on average.
    pub rate: u32,
    /// At once, after a pause.
    pub burst: u32,
    /// Places held at the same time.
    pub places: u32,
}

/// Clones share the table.
#[derive(Debug, Clone)]
pub struct Addresses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    tables: Mutex<Tables>,
}

/// Seen lately, and before that. When the young are many they become the old, and the old
/// are forgotten but for those that hold a place.
#[derive(Debug, Default)]
struct Tables {
    young: HashMap<IpAddr, Bucket>,
    old: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    places: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error("the address asks more often than it may")]
    Often(Duration),
    #[error("the address has as much open as it may")]
    AtOnce,
}

/// Held by one connection of an address.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    key: IpAddr,
}

/// An IPv6 host has a whole network of 64 bits to choose its address from.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        four @ IpAddr::V4(_) => four,
    }
}

impl Addresses {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, tables: Mutex::default() }))
    }

    /// Ask once for `address`.
    ///
    /// # Errors
    /// When it may ask again.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        match self.0.ask(key(address), now, false) {
            Err(TooMuch::Often(wait)) => Err(wait),
            _ => Ok(()),
        }
    }

    /// Ask once, and hold a place until it is dropped.
    ///
    /// # Errors
    /// Which bound the address is at.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Result<Place, TooMuch> {
        let key = key(address);
        self.0.ask(key, now, true)?;
        Ok(Place { inner: self.0.clone(), key })
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        let tables = self.0.tables();
        tables.young.len() + tables.old.len()
    }
}

impl Inner {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, key: IpAddr, now: Instant, place: bool) -> Result<(), TooMuch> {
        let Limits { rate, burst, places } = self.limits;
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        let mut tables = self.tables();
        let bucket = tables.young_one(key, Bucket { left: burst, at: now, places: 0 });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * rate).min(burst);
        bucket.at = bucket.at.max(now);
        if bucket.left < 1.0 {
            return Err(TooMuch::Often(Duration::from_secs_f64((1.0 - bucket.left) / rate)));
        }
        if place && bucket.places >= places {
            return Err(TooMuch::AtOnce);
        }
        bucket.left -= 1.0;
        bucket.places += u32::from(place);
        Ok(())
    }
}

impl Tables {
    fn young_one(&mut self, key: IpAddr, new: Bucket) -> &mut Bucket {
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            let mut kept = std::mem::take(&mut self.old);
            // As many as there may be connections, which is far below a generation.
            kept.retain(|_, bucket| bucket.places > 0);
            self.old = std::mem::replace(&mut self.young, kept);
        }
        let known = self.old.remove(&key);
        self.young.entry(key).or_insert(known.unwrap_or(new))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tables = self.inner.tables();
        let Tables { young, old } = &mut *tables;
        if let Some(bucket) = young.get_mut(&self.key).or_else(|| old.get_mut(&self.key)) {
            bucket.places = bucket.places.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(rate: u32, burst: u32, places: u32) -> (Addresses, Instant) {
        (Addresses::new(Limits { rate, burst, places }), Instant::now())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate_each_address_for_itself() {
        let (addresses, now) = limited(2, 3, 100);
        for _ in 0..3 {
            assert_eq!(addresses.take(ip("192.0.2.1"), now), Ok(()));
        }
        assert_eq!(addresses.take(ip("192.0.2.1"), now), Err(Duration::from_millis(500)));
        assert_eq!(addresses.take(ip("::ffff:192.0.2.1"), now), Err(Duration::from_millis(500)), "the same address");
        assert_eq!(addresses.take(ip("192.0.2.2"), now), Ok(()));
        assert_eq!(addresses.take(ip("192.0.2.1"), now + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let (addresses, now) = limited(1, 1, 100);
        assert!(addresses.take(ip("2001:db8::1"), now).is_ok());
        assert!(addresses.take(ip("2001:db8::ffff:1"), now).is_err());
        assert!(addresses.take(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn places_are_given_back() {
        let (addresses, now) = limited(100, 100, 2);
        let first = addresses.enter(ip("192.0.2.1"), now).unwrap();
        let _second = addresses.enter(ip("192.0.2.1"), now).unwrap();
        assert_eq!(addresses.enter(ip("192.0.2.1"), now).unwrap_err(), TooMuch::AtOnce);
        assert!(addresses.enter(ip("192.0.2.2"), now).is_ok());
        drop(first);
        assert!(addresses.enter(ip("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_longest_unseen() {
        let (addresses, now) = limited(1, 1, 1);
        let held = addresses.enter(ip("192.0.2.1"), now).unwrap();
        let busy = ip("192.0.2.2");
        assert!(addresses.take(busy, now).is_ok());
        for n in 0..3 * u32::try_from(GENERATION).unwrap() {
            let _ = addresses.take(IpAddr::V4((0x0a00_0000 + n).into()), now);
            if n % 1_000 == 0 {
                assert!(addresses.take(busy, now).is_err(), "seen again and again, so remembered");
            }
        }
        assert!(addresses.remembered() <= 2 * GENERATION);
        assert!(addresses.take(ip("10.0.0.0"), now).is_ok(), "forgotten, it begins anew");
        let later = now + Duration::from_secs(10);
        assert_eq!(addresses.enter(ip("192.0.2.1"), later).unwrap_err(), TooMuch::AtOnce, "its place is not forgotten");
        drop(held);
        assert!(addresses.enter(ip("192.0.2.1"), later).is_ok());
    }
}
