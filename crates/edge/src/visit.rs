//! Which release a request goes to while requests are shared between two, and how a visitor stays with his.

use std::sync::Arc;

use berth_routing::split::{PIN_HEADER, Share, VISITOR_COOKIE, choose, cookie, pinned, visitor_of};
use berth_spec::ReleaseNumber;
use http::header::{self, HeaderMap, HeaderValue};

use crate::backend::{Backend, InFlight};
use crate::tally::Tally;

/// What a request says of the release that it wants, or of who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visit {
    /// The release that it names.
    pin: Option<ReleaseNumber>,
    /// Who sends it: by the cookie, else somebody new.
    visitor: u64,
    /// Whether the visitor is to be told who he is: a browser that opens a page, for the first time. No answer to a program, and none that
    /// is part of a page, gets a cookie, which would keep caches from it.
    is_to_be_told: bool,
}

impl Visit {
    /// Of somebody new, who is not told so.
    pub(crate) fn new(random: u64) -> Self {
        Self { pin: None, visitor: random, is_to_be_told: false }
    }

    /// As its headers say.
    pub(crate) fn of(headers: &HeaderMap, random: u64) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let pin = headers.get(PIN_HEADER).and_then(text).and_then(|text| text.trim().parse().ok());
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(text);
        let known = cookies.filter(|it| it.contains(VISITOR_COOKIE)).find_map(|it| visitor_of(&it));
        let opens = match headers.get("sec-fetch-mode") {
            Some(mode) => mode.as_bytes() == b"navigate",
            None => headers.get(header::ACCEPT).and_then(text).is_some_and(|it| it.contains("text/html")),
        };
        Self {
            pin,
            visitor: known.unwrap_or(random),
            is_to_be_told: opens && known.is_none() && pin.is_none(),
        }
    }

    /// The cookie that the answer is to set.
    pub(crate) fn cookie(&self) -> Option<HeaderValue> {
        let text = self.is_to_be_told.then(|| cookie(self.visitor))?;
        HeaderValue::from_str(&text).ok()
    }
}

/// How the requests of an app are shared.
#[derive(Debug)]
pub(crate) struct Split {
    shares: Vec<Share>,
    tallies: Vec<Arc<Tally>>,
}

impl Split {
    /// As the snapshot has it; nothing where one release has all requests.
    pub(crate) fn new(shares: &[Share], tally: impl FnMut(ReleaseNumber) -> Arc<Tally>) -> Option<Self> {
        let tallies = shares.iter().map(|share| share.release).map(tally).collect();
        (!shares.is_empty()).then(|| Self { shares: shares.to_vec(), tallies })
    }

    /// The share whose instances are to get this request, if any of them can be had: one that was not tried and does not fail its probes.
    pub(crate) fn share_for(&self, visit: Visit, routed: &[Arc<Backend>], tried: &[u64]) -> Option<&Share> {
        let pinned = visit.pin.and_then(|release| pinned(&self.shares, release));
        let share = self.shares.get(pinned.or_else(|| choose(&self.shares, visit.visitor))?)?;
        let can_be_had = |it: &Arc<Backend>| {
            share.instances.contains(&it.instance.ordinal) && it.is_well() && !tried.contains(&it.key)
        };
        routed.iter().any(can_be_had).then_some(share)
    }

    /// Where a request is counted that went to `lease`; nowhere when it named the release itself.
    pub(crate) fn tally_of(&self, visit: Visit, lease: &InFlight) -> Option<&Arc<Tally>> {
        let place = self.place_of(lease.backend().instance.ordinal)?;
        self.tallies.get(place).filter(|_| visit.pin.is_none())
    }

    /// Which of the shares this instance is in.
    pub(crate) fn place_of(&self, ordinal: u64) -> Option<usize> {
        self.shares.iter().position(|share| share.instances.contains(&ordinal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_browser_is_told_once_who_it_is_and_a_program_never() {
        let page = [("accept", "text/html,*/*")];
        let told = Visit::of(&headers(&page), 7).cookie().unwrap();
        let pair = told.to_str().unwrap().split_once(';').unwrap().0.to_owned();
        let mut again = headers(&page);
        again.insert(header::COOKIE, HeaderValue::from_str(&pair).unwrap());
        let again = Visit::of(&again, 8);
        assert_eq!((again.visitor, again.cookie()), (7, None));
        let part = [("accept", "text/html"), ("sec-fetch-mode", "cors")];
        assert_eq!(Visit::of(&headers(&part), 7).cookie(), None);
        assert_eq!(Visit::of(&headers(&[("accept", "application/json")]), 7).cookie(), None);
    }

    #[test]
    fn a_pin_is_a_number_with_or_without_its_letter() {
        for (value, pin) in [("v2", Some(2)), ("2", Some(2)), ("v0", None), ("new", None)] {
            let visit = Visit::of(&headers(&[(PIN_HEADER, value)]), 7);
            assert_eq!(visit.pin, pin.map(ReleaseNumber), "{value}");
        }
    }
}
