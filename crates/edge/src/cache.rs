//! What an app's answers are stored in, where its manifest wants that: a shared cache between its clients and it (RFC 9111).
//!
//! `directives` reads what messages say, `rules` decides what may be stored and used, `store` is the memory, `caching` the way of one request by
//! all that. One cache is of one app and one release, over all threads: another release has another one, so that nothing of the one before can
//! be in it.

mod caching;
mod directives;
mod rules;
mod store;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_routing::CacheRoute;
use http::header::{HeaderMap, HeaderValue};
use tokio::sync::watch;

pub(crate) use self::caching::{Caching, Looked, look};
use self::rules::Asks;
use self::store::{Name, Store, Stored};

/// So many marks there are of what was changed, and of what is not to be stored, each for all names of one hash.
const MARKS: usize = 1_024;

/// The stored answers of one release of an app.
#[derive(Debug)]
pub(crate) struct Cache {
    said: CacheRoute,
    store: Mutex<Store>,
    /// What is being fetched, of which one is enough.
    flights: Mutex<HashMap<Name, watch::Receiver<()>>>,
    /// How much of answers that are being fetched is here.
    arriving: AtomicUsize,
    hash: RandomState,
    /// How often something was changed.
    changes: Box<[AtomicU64]>,
    /// The hash of a name whose answer was not to be stored, so that nobody waits for another's.
    unstored: Box<[AtomicU64]>,
}

/// What was found.
#[derive(Debug)]
enum Found {
    Fresh(Arc<Stored>),
    /// It is too old, for this request or for any.
    Stale(Arc<Stored>),
    /// There are answers for other requests alone.
    Others,
    Nothing,
}

/// Who fetches what others wait for. They wait no longer once this is gone.
#[derive(Debug)]
struct Lead {
    cache: Arc<Cache>,
    name: Name,
    _others_hear: watch::Sender<()>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Before the sender goes, so that who comes now does not wait for nothing.
        locked(&self.cache.flights).remove(&self.name);
    }
}

/// Room for what arrives, as long as it is not stored.
struct Arriving<'c> {
    cache: &'c Cache,
    bytes: usize,
}

impl Arriving<'_> {
    /// False when as much arrives as may.
    fn grow(&mut self, by: usize) -> bool {
        self.bytes += by;
        let before = self.cache.arriving.fetch_add(by, Relaxed);
        before + by <= self.cache.size()
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.cache.arriving.fetch_sub(self.bytes, Relaxed);
    }
}

impl Cache {
    /// As `said`; `all` is what the caches of all apps take.
    pub(crate) fn new(said: CacheRoute, all: &Arc<AtomicUsize>) -> Self {
        let marks = || (0..MARKS).map(|_| AtomicU64::new(0)).collect();
        let size = usize::try_from(said.size.0).unwrap_or(usize::MAX);
        Self {
            store: Mutex::new(Store::new(size, Arc::clone(all))),
            said,
            flights: Mutex::default(),
            arriving: AtomicUsize::new(0),
            hash: RandomState::new(),
            changes: marks(),
            unstored: marks(),
        }
    }

    pub(crate) fn is_of(&self, said: &CacheRoute) -> bool {
        self.said == *said
    }

    fn size(&self) -> usize {
        usize::try_from(self.said.size.0).unwrap_or(usize::MAX)
    }

    /// The longest body that is stored.
    fn max_body(&self) -> usize {
        usize::try_from(self.said.max_body.0).unwrap_or(usize::MAX)
    }

    /// What is stored for a request with these headers that asks for `asks`.
    fn find(&self, name: &[u8], headers: &HeaderMap, asks: &Asks, now: Duration) -> Found {
        let mut store = locked(&self.store);
        let variants = store.get(name);
        let fits = |it: &&Arc<Stored>| it.selecting.selects(headers) && (it.freshness.for_all || !asks.known);
        // The newest of those that fit (RFC 9111, 4): an app that names what an answer depends on only where it matters has older ones for all.
        match variants.iter().rev().find(fits) {
            Some(it) if asks.takes(&it.freshness, it.age(now)) => Found::Fresh(Arc::clone(it)),
            Some(it) => Found::Stale(Arc::clone(it)),
            None if variants.is_empty() => Found::Nothing,
            None => Found::Others,
        }
    }

    /// Stores an answer, unless what it is about was changed since `before` was asked for, or it is one made of what was stored, `of`, that is
    /// not there any more: something newer may be. Says whether it is there.
    fn put(&self, name: &[u8], stored: Stored, before: u64, of: Option<&Arc<Stored>>) -> bool {
        let mut store = locked(&self.store);
        // Within the lock: who changes something counts it first and forgets then.
        if self.changes(name) != before {
            return false;
        }
        if of.is_some_and(|of| !store.get(name).iter().any(|it| Arc::ptr_eq(it, of))) {
            return false;
        }
        self.mark(&self.unstored, name).store(0, Relaxed);
        store.put(name, stored)
    }

    /// How often what is named so, or something else of the same hash, was changed.
    fn changes(&self, name: &[u8]) -> u64 {
        self.mark(&self.changes, name).load(SeqCst)
    }

    /// What is named so was changed: what is stored of it is of no use any more, nor is what is on its way.
    fn change(&self, name: &[u8]) {
        self.mark(&self.changes, name).fetch_add(1, SeqCst);
        locked(&self.store).remove(name);
    }

    /// Fetches what is named so, or else waits for who does.
    fn lead(self: &Arc<Self>, name: &[u8]) -> Result<Lead, watch::Receiver<()>> {
        let mut flights = locked(&self.flights);
        if let Some(flight) = flights.get(name) {
            return Err(flight.clone());
        }
        let (sender, receiver) = watch::channel(());
        flights.insert(name.into(), receiver);
        Ok(Lead { cache: Arc::clone(self), name: name.into(), _others_hear: sender })
    }

    /// Whether an answer of this name was not to be stored when it was last fetched.
    fn is_unstored(&self, name: &[u8]) -> bool {
        self.mark(&self.unstored, name).load(Relaxed) == self.hash_of(name)
    }

    fn set_unstored(&self, name: &[u8]) {
        self.mark(&self.unstored, name).store(self.hash_of(name), Relaxed);
    }

    fn hash_of(&self, name: &[u8]) -> u64 {
        // Nought is no mark.
        self.hash.hash_one(name).max(1)
    }

    fn mark<'m>(&self, marks: &'m [AtomicU64], name: &[u8]) -> &'m AtomicU64 {
        let at = usize::try_from(self.hash_of(name) % MARKS as u64).unwrap_or_default();
        &marks[at]
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in there is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What answers to a request for `path` are stored under, and whether the host is written as it is always written: one that is not may be told
/// apart by the app, and is not stored. The port is part of it, since apps put it into links.
fn name(secure: bool, host: &HeaderValue, path: &str) -> (Name, bool) {
    let written = host.as_bytes();
    let mut plain = written.to_ascii_lowercase();
    let usual: &[u8] = if secure { b":443" } else { b":80" };
    if plain.ends_with(usual) {
        plain.truncate(plain.len() - usual.len());
    }
    let is_plain = plain == written;
    let scheme: &[u8] = if secure { b"https " } else { b"http " };
    // Neither a host nor a path has a blank in it.
    ([scheme, &plain, b" ", path.as_bytes()].concat().into(), is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_scheme_the_host_and_all_of_the_path() {
        let of = |secure, host: &str, path| name(secure, &host.parse().unwrap(), path);
        let (plain, is_plain) = of(false, "shop.com:8080", "/a?b");
        assert_eq!((&*plain, is_plain), (&b"http shop.com:8080 /a?b"[..], true));
        assert_eq!(of(false, "Shop.com:80", "/a"), (b"http shop.com /a"[..].into(), false));
        assert_eq!(of(true, "shop.com:443", "/a"), (b"https shop.com /a"[..].into(), false));
        assert!(of(true, "shop.com:80", "/a").1);
    }

    #[test]
    fn one_fetches_and_the_others_hear_of_its_end() {
        let (size, max_body) = (berth_spec::Bytes(1 << 20), berth_spec::Bytes(1 << 10));
        let said = CacheRoute { release: berth_spec::ReleaseNumber(1), size, max_body };
        let cache = Arc::new(Cache::new(said, &Arc::default()));
        let lead = cache.lead(b"a").unwrap();
        let waits = cache.lead(b"a").unwrap_err();
        assert!(cache.lead(b"b").is_ok() && waits.has_changed().is_ok());
        drop(lead);
        assert!(waits.has_changed().is_err(), "there is nobody to wait for");
        assert!(cache.lead(b"a").is_ok());
        assert!(!cache.is_unstored(b"a"));
        cache.set_unstored(b"a");
        assert!(cache.is_unstored(b"a"));
    }
}
