//! The memory of a cache: bounded, and what nobody asks for goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;

use super::rules::{Freshness, Selecting};

/// The most answers that are stored under one name, for requests that differ in what they depend on.
const VARIANTS_MAX: usize = 8;
/// What an answer takes beside what it is made of: tables, counters, the frames of its headers.
const OVERHEAD: usize = 512;
/// What the caches of all apps take together. One that would exceed it gives up its own.
const ALL_MAX: usize = 512 << 20;

/// What an answer is stored under.
pub(super) type Name = Box<[u8]>;

/// An answer.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) freshness: Freshness,
    pub(super) selecting: Selecting,
    /// When it came, by the monotonic clock.
    pub(super) at: Duration,
}

impl Stored {
    /// How old it is (RFC 9111, 4.2.3).
    pub(super) fn age(&self, now: Duration) -> Duration {
        self.freshness.initial_age.saturating_add(now.saturating_sub(self.at))
    }

    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        self.body.len() + headers.sum::<usize>() + self.selecting.size() + OVERHEAD
    }
}

/// What is stored under one name.
#[derive(Debug)]
struct Page {
    /// Where it stands in the order.
    number: u64,
    /// Whether somebody asked for it since the hand came by.
    asked: bool,
    variants: Vec<Arc<Stored>>,
}

/// What is stored. Where there is no room for one more the hand of CLOCK goes round (Corbató, "A paging experiment with the Multics system",
/// 1968): it spares once what was asked for since it came by, and takes what was not.
#[derive(Debug)]
pub(super) struct Store {
    pages: HashMap<Name, Page>,
    /// From the hand on. What stands here with another number than its page is gone.
    order: VecDeque<(Name, u64)>,
    next: u64,
    size: usize,
    max: usize,
    all: Arc<AtomicUsize>,
}

impl Store {
    /// One of `max` bytes, which counts in `all` what it takes.
    pub(super) fn new(max: usize, all: Arc<AtomicUsize>) -> Self {
        Self { pages: HashMap::new(), order: VecDeque::new(), next: 0, size: 0, max, all }
    }

    /// What is stored under `name`.
    pub(super) fn get(&mut self, name: &[u8]) -> &[Arc<Stored>] {
        let Some(page) = self.pages.get_mut(name) else { return &[] };
        page.asked = true;
        &page.variants
    }

    /// Stores an answer in place of the one for the same requests. False where there is no room for it.
    pub(super) fn put(&mut self, name: &[u8], stored: Stored) -> bool {
        let size = stored.size() + 2 * name.len();
        if size > self.max {
            return false;
        }
        let number = self.next;
        let page = self.pages.entry(name.into()).or_insert_with(|| {
            self.next += 1;
            self.order.push_back((name.into(), number));
            Page { number, asked: false, variants: Vec::new() }
        });
        let same = page.variants.iter().position(|it| it.selecting == stored.selecting);
        let gone = same.or((page.variants.len() >= VARIANTS_MAX).then_some(0));
        let freed = gone.map_or(0, |at| page.variants.remove(at).size() + 2 * name.len());
        page.variants.push(Arc::new(stored));
        self.grow(size);
        self.shrink(freed);
        while self.size > self.max || self.all.load(Relaxed) > ALL_MAX {
            if !self.turn() {
                break;
            }
        }
        self.pages.contains_key(name)
    }

    /// Forgets what is stored under `name`.
    pub(super) fn remove(&mut self, name: &[u8]) {
        let Some(page) = self.pages.remove(name) else { return };
        self.shrink(page.variants.iter().map(|it| it.size() + 2 * name.len()).sum());
        if self.order.len() > 2 * self.pages.len() + VARIANTS_MAX {
            let pages = &self.pages;
            self.order.retain(|(name, number)| pages.get(name).is_some_and(|page| page.number == *number));
        }
    }

    /// Moves the hand on by one. False when there is nothing left.
    fn turn(&mut self) -> bool {
        let Some((name, number)) = self.order.pop_front() else { return false };
        let Some(page) = self.pages.get_mut(&name).filter(|page| page.number == number) else { return true };
        if std::mem::take(&mut page.asked) {
            self.order.push_back((name, number));
        } else {
            self.remove(&name);
        }
        true
    }

    fn grow(&mut self, by: usize) {
        self.size += by;
        self.all.fetch_add(by, Relaxed);
    }

    fn shrink(&mut self, by: usize) {
        self.size -= by;
        self.all.fetch_sub(by, Relaxed);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.all.fetch_sub(self.size, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(body: usize, variant: &str) -> Stored {
        let request = HeaderMap::from_iter([(http::header::ACCEPT, variant.parse().unwrap())]);
        let response = HeaderMap::from_iter([(http::header::VARY, "accept".parse().unwrap())]);
        Stored {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![0; body].into(),
            freshness: Freshness {
                lifetime: Duration::MAX,
                initial_age: Duration::ZERO,
                if_error: Duration::ZERO,
                for_all: true,
            },
            selecting: Selecting::of(&request, &response).unwrap(),
            at: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_asked_for_stays_and_what_was_not_goes() {
        let mut store = Store::new(40_000, Arc::default());
        assert!(store.put(b"asked", answer(9_000, "a")) && store.put(b"other", answer(9_000, "a")));
        assert_eq!(store.get(b"asked").len(), 1);
        for number in 0..9_u8 {
            assert!(store.put(&[number], answer(9_000, "a")));
            assert_eq!(store.get(b"asked").len(), 1, "{number}");
        }
        assert!(store.get(b"other").is_empty() && store.get(&[8]).len() == 1);
        assert!(!store.put(b"much", answer(40_000, "a")), "it would be all that there is");
        assert_eq!(store.get(b"asked").len(), 1);
    }

    #[test]
    fn one_name_has_so_many_answers_and_a_new_one_takes_the_place_of_its_like() {
        let mut store = Store::new(1 << 20, Arc::default());
        for variant in ["a", "a", "b"] {
            assert!(store.put(b"x", answer(1, variant)));
        }
        assert_eq!(store.get(b"x").len(), 2);
        for number in 0..20 {
            assert!(store.put(b"x", answer(1, &number.to_string())));
        }
        assert_eq!(store.get(b"x").len(), VARIANTS_MAX);
        store.remove(b"x");
        assert!(store.get(b"x").is_empty() && store.size == 0);
    }

    proptest! {
        /// Whatever is done, it takes no more than it may, knows how much it takes, and its order does not grow.
        #[test]
        fn it_stays_within_its_bound(
            steps in proptest::collection::vec((0_u8..3, 0_u8..20, 0_usize..3_000, "[ab]"), 0..300),
        ) {
            let all = Arc::<AtomicUsize>::default();
            let mut store = Store::new(20_000, Arc::clone(&all));
            for (step, name, body, variant) in steps {
                match step {
                    0 => drop(store.put(&[name], answer(body, &variant))),
                    1 => store.remove(&[name]),
                    _ => drop(store.get(&[name]).len()),
                }
                let sizes = store.pages.iter().flat_map(|(name, page)| {
                    page.variants.iter().map(|it| it.size() + 2 * name.len())
                });
                prop_assert_eq!(sizes.sum::<usize>(), store.size);
                prop_assert_eq!(all.load(Relaxed), store.size);
                prop_assert!(store.size <= 20_000 && store.order.len() <= 2 * store.pages.len() + 2 * VARIANTS_MAX);
                let is_in_order = |page: &Page| store.order.iter().any(|(_, number)| *number == page.number);
                prop_assert!(store.pages.values().all(|it| !it.variants.is_empty() && is_in_order(it)));
            }
            drop(store);
            prop_assert_eq!(all.load(Relaxed), 0);
        }
    }
}
