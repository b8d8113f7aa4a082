//! The rate limits of one app, over all threads.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_routing::path::Asked;
use berth_routing::rate::{Rate, Verdict};
use berth_routing::rules::takes;
use berth_spec::RateLimit;
use berth_spec::manifest::Principal;
use http::header::{self, HeaderMap};

/// So many clients a rule remembers in each of two generations; each takes 16 bytes and a part of a table, so that a rule takes a megabyte at
/// most. When one generation is full the one before is forgotten, which are those that were not seen for longest: whoever floods a rule with
/// addresses gives others a burst, and himself no more than that.
const CLIENTS_MAX: usize = 16_384;

/// The rules of an app and what is remembered by them. It outlives snapshots for as long as the rules are the same.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    rules: Vec<Rule>,
    /// Clients are remembered by a keyed hash: what a header says may be long, and is nobody's business. Nobody outside can make two that collide.
    hash: RandomState,
}

#[derive(Debug)]
struct Rule {
    said: RateLimit,
    rate: Rate,
    /// One lock for all threads, so that a limit is exact however connections are spread over them. It is held for two look-ups in a table.
    clients: Mutex<Clients>,
}

/// When the next request of each is expected, see [`Rate`].
#[derive(Debug, Default)]
struct Clients {
    young: HashMap<u64, Duration>,
    old: HashMap<u64, Duration>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Which of the rules, from 1.
    pub(crate) rule: u32,
    /// So many requests are let through ...
    pub(crate) requests: u32,
    /// ... in so many seconds.
    pub(crate) seconds: u64,
    /// After how many seconds the next one is let through.
    pub(crate) after: u64,
}

impl Limiter {
    pub(crate) fn new(rules: &[RateLimit]) -> Self {
        let rules = rules.iter().map(|said| Rule {
            rate: Rate::new(said.requests, said.per.as_duration(), said.burst),
            said: said.clone(),
            clients: Mutex::default(),
        });
        Self { rules: rules.collect(), hash: RandomState::new() }
    }

    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(crate) fn is_of(&self, rules: &[RateLimit]) -> bool {
        self.rules.iter().map(|rule| &rule.said).eq(rules)
    }

    /// Counts a request at `now` from `peer` by every rule that is about it, in their order, up to one that refuses it.
    pub(crate) fn admit(
        &self,
        method: &str,
        path: &str,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Duration,
    ) -> Result<(), Exceeded> {
        let asked = Asked::new(path);
        for (rule, number) in self.rules.iter().zip(1..) {
            let is_below = rule.said.path.as_ref().is_none_or(|prefix| asked.is_below(prefix.as_str()));
            if !is_below || !takes(&rule.said.methods, method) {
                continue;
            }
            let client = self.client(rule, peer, headers);
            if let Err(after) = rule.admit(client, now) {
                return Err(Exceeded {
                    rule: number,
                    requests: rule.said.requests,
                    seconds: rule.said.per.0.div_ceil(1_000),
                    // Who waits for the seconds that it is told is let through.
                    after: u64::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1),
                });
            }
        }
        Ok(())
    }

    /// The client as it is remembered: by a hash, so that nothing of what a header says is kept. Who does not say who he is is counted by address.
    fn client(&self, rule: &Rule, peer: IpAddr, headers: &HeaderMap) -> u64 {
        match principal(&rule.said.by, headers) {
            Some((scheme, value)) => self.hash.hash_one((true, scheme, value)),
            None => self.hash.hash_one((false, crate::address::group(peer))),
        }
    }
}

/// What a request says of who sends it: the scheme of a credential, in small letters, and the rest. Nothing when it says that twice: of two values
/// an app believes one, and a client could have it believe the same one with ever new ones beside.
fn principal<'h>(by: &Principal, headers: &'h HeaderMap) -> Option<(Option<String>, &'h [u8])> {
    if let Some(name) = by.cookie() {
        return only(cookies(headers).filter(|(it, _)| *it == name.as_bytes()))
            .map(|(_, value)| (None, value));
    }
    let name = by.header()?;
    let value = only(headers.get_all(name).iter())?.as_bytes();
    if name != header::AUTHORIZATION.as_str() {
        return Some((None, value));
    }
    // `bearer x` and `BEARER  x` are one credential (RFC 9110, 11.1 and 11.4).
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    Some((Some(String::from_utf8_lossy(scheme).to_ascii_lowercase()), rest.trim_ascii()))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|it| it.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at(at);
        Some((name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()))
    })
}

/// The item, where there is one alone.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

impl Rule {
    fn admit(&self, client: u64, now: Duration) -> Result<(), Duration> {
        // Nothing in there is left half done by a panic.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = clients.young.get(&client).or_else(|| clients.old.get(&client)).copied();
        match self.rate.decide(kept, now) {
            Verdict::Pass { next, .. } => {
                clients.keep(client, next);
                Ok(())
            }
            Verdict::Refuse { after } => Err(after),
        }
    }
}

impl Clients {
    fn keep(&mut self, client: u64, next: Duration) {
        if self.young.len() >= CLIENTS_MAX && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(client, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(by: &str, path: Option<&str>) -> Limiter {
        Limiter::new(&[RateLimit {
            requests: 2,
            per: berth_spec::Millis::from_secs(60),
            burst: 2,
            by: by.parse().unwrap(),
            path: path.map(|path| path.parse().unwrap()),
            methods: Vec::new(),
        }])
    }

    fn headers(key: Option<&'static str>) -> HeaderMap {
        key.map(|key| (http::header::AUTHORIZATION, http::HeaderValue::from_static(key)))
            .into_iter()
            .collect()
    }

    #[test]
    fn an_address_has_its_own_rate_and_an_ipv6_network_one_together() {
        let limiter = limiter("ip", None);
        let admitted =
            |peer: &str| limiter.admit("GET", "/", peer.parse().unwrap(), &headers(None), SECOND).is_ok();
        assert!(admitted("192.0.2.1") && admitted("192.0.2.1") && !admitted("192.0.2.1"));
        assert!(admitted("192.0.2.2"));
        assert!(admitted("2001:db8::1") && admitted("2001:db8::2") && !admitted("2001:db8::ffff:3"));
        assert!(admitted("2001:db8:0:1::1"));
    }

    #[test]
    fn a_header_is_who_asks_and_without_it_the_address() {
        let limiter = limiter("header:Authorization", None);
        let admitted =
            |key| limiter.admit("GET", "/", "192.0.2.1".parse().unwrap(), &headers(key), SECOND).is_ok();
        assert!(admitted(Some("a")) && admitted(Some("a")) && !admitted(Some("a")));
        assert!(admitted(Some("b")));
        assert!(admitted(None) && admitted(None) && !admitted(None));
    }

    #[test]
    fn one_credential_is_one_however_it_is_written() {
        let limiter = limiter("header:Authorization", None);
        let admitted = |key| {
            let peer = "192.0.2.1".parse().unwrap();
            limiter.admit("GET", "/", peer, &headers(Some(key)), SECOND).is_ok()
        };
        assert!(admitted("Bearer Key") && admitted("bearer  Key ") && !admitted("BEARER Key"));
        assert!(admitted("Bearer key"), "what follows the scheme is as it is written");
    }

    #[test]
    fn who_says_twice_who_he_is_is_counted_by_address() {
        let limiter = limiter("cookie:session", None);
        let admitted = |cookies: &str| {
            let cookies = cookies.parse().unwrap();
            let headers = HeaderMap::from_iter([(header::COOKIE, cookies)]);
            limiter.admit("GET", "/", "192.0.2.1".parse().unwrap(), &headers, SECOND).is_ok()
        };
        assert!(admitted("a=1; session=x") && admitted("session=x;b=2") && !admitted("session = x"));
        assert!(admitted("session=y") && admitted("Session=x") && admitted("b=2"));
        assert!(!admitted("session=1; session=2") && !admitted("session=3;session=y"));
    }

    #[test]
    fn a_rule_may_be_about_some_methods() {
        let mut rule = limiter("ip", None).rules.remove(0).said;
        rule.methods = vec!["POST".parse().unwrap()];
        let limiter = Limiter::new(&[rule]);
        let admitted =
            |method| limiter.admit(method, "/", "::1".parse().unwrap(), &headers(None), SECOND).is_ok();
        assert!(admitted("POST") && admitted("post") && !admitted("POST"));
        assert!(admitted("GET"));
    }

    #[test]
    fn who_is_refused_is_told_when_he_is_not() {
        let limiter = limiter("ip", Some("/login"));
        let ask = |path, now| limiter.admit("GET", path, "192.0.2.1".parse().unwrap(), &headers(None), now);
        assert_eq!([ask("/login", SECOND), ask("/login/", SECOND)], [Ok(()), Ok(())]);
        let refused = Exceeded { rule: 1, requests: 2, seconds: 60, after: 30 };
        assert_eq!(ask("/%6Cogin", SECOND), Err(refused));
        assert_eq!(ask("/logins", SECOND), Ok(()), "it is about something else");
        assert_eq!(ask("/login", SECOND + 30 * SECOND), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_busiest_are_not_forgotten() {
        let limiter = limiter("ip", None);
        let admit = |address: u32, now| {
            limiter.admit("GET", "/", IpAddr::V4(address.into()), &headers(None), now).is_ok()
        };
        let limit = u32::try_from(CLIENTS_MAX).unwrap();
        for address in 0..3 * limit {
            assert!(admit(address, SECOND));
        }
        let clients = limiter.rules[0].clients.lock().unwrap();
        assert!(clients.young.len() + clients.old.len() <= 2 * CLIENTS_MAX);
        drop(clients);
        assert!(admit(3 * limit - 1, SECOND) && !admit(3 * limit - 1, SECOND), "one that was just here");
        assert!(admit(0, SECOND) && admit(0, SECOND), "one that is long gone starts over");
    }
}
