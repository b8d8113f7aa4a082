//! What may be stored, for whom, and for how long (RFC 9111).
//!
//! Where the standard leaves a choice the careful one is made: nothing is stored by a guess at how long it is good for, nothing with
//! `Set-Cookie`, and nothing that was asked for with a cookie or a credential unless the app says that it is for everybody.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use berth_routing::split::PIN_HEADER;

use super::directives::{Directives, names, seconds};
use crate::http1::response::is_event_stream;

/// The most headers that an answer may depend on.
const SELECTING_MAX: usize = 8;

/// What a request that can be answered from what is stored asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asks {
    /// Whether it wants no body.
    pub(super) head: bool,
    /// Whether it says who sends it.
    pub(super) known: bool,
    /// Whether it has conditions of its own.
    pub(super) conditional: bool,
    /// Whether it wants what is stored and nothing else.
    pub(super) only_if_cached: bool,
    /// Whether it wants the app asked.
    no_cache: bool,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
}

impl Asks {
    /// Nothing when the request has to go by: it is about a part, carries something, forbids to store it, or says in a header of no standard what it
    /// is about, so that an app may answer what a stored answer's name does not tell.
    pub(super) fn of(method: &Method, headers: &HeaderMap, has_body: bool) -> Option<Self> {
        let reads = *method == Method::GET || *method == Method::HEAD;
        let said = Directives::of(headers);
        let goes_by = [
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            header::IF_UNMODIFIED_SINCE,
            header::UPGRADE,
            HeaderName::from_static(PIN_HEADER),
        ];
        if !reads || has_body || said.no_store || goes_by.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        if headers.keys().any(|name| steers(name.as_str())) {
            return None;
        }
        Some(Self {
            head: *method == Method::HEAD,
            known: headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE),
            conditional: headers.contains_key(header::IF_NONE_MATCH)
                || headers.contains_key(header::IF_MODIFIED_SINCE),
            only_if_cached: said.only_if_cached,
            no_cache: said.no_cache,
            max_age: said.max_age,
            min_fresh: said.min_fresh,
        })
    }

    /// Whether it may be answered by what it would take from `freshness` at the age of `age`.
    pub(super) fn takes(&self, freshness: &Freshness, age: Duration) -> bool {
        let enough = self.min_fresh.is_none_or(|least| freshness.lifetime.saturating_sub(age) >= least);
        let young = self.max_age.is_none_or(|most| age <= most);
        !self.no_cache && young && enough && age < freshness.lifetime
    }

    /// Whether the app is to be asked whatever is stored.
    pub(super) fn insists(&self) -> bool {
        self.no_cache || self.max_age == Some(Duration::ZERO)
    }
}

/// Whether a header of this name may tell an app, or what stands before its routes, that the request is about something else. There is no list
/// of such names; these are the words in those that are known from attacks (`X-Original-URL`, `X-HTTP-Method-Override`, `X-Host`). What edge
/// says by `X-Forwarded-` itself follows from what a stored answer is named by, but for the address of the client.
fn steers(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["host", "url", "uri", "path", "rewrite", "override", "scheme", "proto", "port", "prefix"];
    let ours = matches!(name, "x-forwarded-host" | "x-forwarded-proto" | "x-forwarded-for");
    // Servers that hand headers on as variables make one name of `Accept_Encoding` and `Accept-Encoding`: what such an answer depends on is not what it says.
    let folds = name.contains('_');
    folds || name.starts_with("x-") && !ours && WORDS.iter().any(|word| name.contains(word))
}

/// For how long an answer may be used, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Freshness {
    /// From when it was made.
    pub(super) lifetime: Duration,
    /// How old it was when it came.
    pub(super) initial_age: Duration,
    /// For how long after that it may still be used where the app fails (RFC 5861, 4).
    pub(super) if_error: Duration,
    /// Whether the app says that it is the same for everybody, whoever says who he is.
    pub(super) for_all: bool,
}

/// How an answer came about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// When its head was here.
    pub(super) at: SystemTime,
    /// How long that took.
    pub(super) took: Duration,
}

/// What holds for an answer to a request that asked for `asks`; nothing when it is not to be stored.
pub(super) fn freshness(
    asks: &Asks,
    status: StatusCode,
    headers: &HeaderMap,
    came: Came,
) -> Option<Freshness> {
    let is_final = matches!(status.as_u16(), 200 | 203 | 301 | 308 | 404 | 410);
    let said = Directives::of(headers);
    if !is_final || asks.head || said.broken || said.no_store || said.no_cache || said.private {
        return None;
    }
    // Without it a language, an encoding or an origin would be everybody's that was one client's.
    let depends_on =
        |name: &HeaderName| names(headers, &header::VARY).any(|it| it == name.as_str().as_bytes());
    let encoded = headers.contains_key(header::CONTENT_ENCODING) && !depends_on(&header::ACCEPT_ENCODING);
    let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|it| it != "*");
    if headers.contains_key(header::SET_COOKIE) || encoded || (allowed && !depends_on(&header::ORIGIN)) {
        return None;
    }
    // It has no end.
    if headers.get(header::CONTENT_TYPE).is_some_and(|it| is_event_stream(it.as_bytes())) {
        return None;
    }
    let for_all = said.public || said.s_maxage.is_some();
    if asks.known && !for_all {
        return None;
    }
    let lifetime = said.s_maxage.or(said.max_age).or_else(|| expires(headers, came.at))?;
    let date = one(headers, &header::DATE).and_then(date);
    let apparent = date.and_then(|date| came.at.duration_since(date).ok()).unwrap_or_default();
    let told = one(headers, &header::AGE).and_then(seconds).unwrap_or_default();
    let initial_age = apparent.max(told.saturating_add(came.took));
    let if_error = said.stale_if_error.filter(|_| !said.must_revalidate && said.s_maxage.is_none());
    let fresh = Freshness { lifetime, initial_age, if_error: if_error.unwrap_or_default(), for_all };
    (initial_age < lifetime).then_some(fresh)
}

/// From `Date`, or from now where there is none, to `Expires`; nought when that cannot be read, as `0` cannot.
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    headers.get(header::EXPIRES)?;
    let since = one(headers, &header::DATE).and_then(date).unwrap_or(now);
    let until = one(headers, &header::EXPIRES).and_then(date);
    Some(until.and_then(|until| until.duration_since(since).ok()).unwrap_or_default())
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes())
}

fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// The headers of a request that an answer depends on, each with its values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selecting(Vec<(HeaderName, Vec<Vec<u8>>)>);

impl Selecting {
    /// As the answer's `Vary` says; nothing when nobody knows what it depends on, or it is too much.
    pub(super) fn of(request: &HeaderMap, response: &HeaderMap) -> Option<Self> {
        let mut named: Vec<HeaderName> = Vec::new();
        for name in names(response, &header::VARY) {
            // `*` is no name.
            named.push(HeaderName::from_bytes(&name).ok().filter(|_| name != b"*")?);
        }
        named.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        named.dedup();
        let fits = named.len() <= SELECTING_MAX;
        let pairs = named.into_iter().map(|name| (values(request, &name), name));
        fits.then(|| Self(pairs.map(|(values, name)| (name, values)).collect()))
    }

    pub(super) fn selects(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, wanted)| values(request, name) == *wanted)
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.0
            .iter()
            .map(|(name, values)| name.as_str().len() + values.iter().map(Vec::len).sum::<usize>())
            .sum()
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<Vec<u8>> {
    headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii().to_vec()).collect()
}

/// Whether a request has what is stored with these `headers` already (RFC 9110, 13.2.2).
pub(super) fn is_unchanged(request: &HeaderMap, headers: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        let Some(tag) = one(headers, &header::ETAG) else { return false };
        let bare = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
        let lists = request.get_all(header::IF_NONE_MATCH).iter().map(|list| list.as_bytes());
        // A tag may have a comma in it: one that is cut does not match, and the whole answer is given.
        return lists
            .flat_map(|list| list.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .any(|it| it == b"*" || bare(it) == bare(tag));
    }
    let since = one(request, &header::IF_MODIFIED_SINCE).and_then(date);
    let changed = one(headers, &header::LAST_MODIFIED).and_then(date);
    since.zip(changed).is_some_and(|(since, changed)| changed <= since)
}

/// Whether what the app says in a 304 to a client's own condition is about what is stored (RFC 9111, 4.3.4): both have the same validator, the
/// tag where the app names one.
pub(super) fn is_about(said: &HeaderMap, stored: &HeaderMap) -> bool {
    let validator = if said.contains_key(header::ETAG) { header::ETAG } else { header::LAST_MODIFIED };
    one(said, &validator).is_some_and(|it| one(stored, &validator) == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn asks(lines: &[(&str, &str)]) -> Option<Asks> {
        Asks::of(&Method::GET, &headers(lines), false)
    }

    fn came() -> Came {
        Came { at: httpdate::parse_http_date(NOW).unwrap(), took: Duration::ZERO }
    }

    fn stored(request: &[(&str, &str)], status: u16, response: &[(&str, &str)]) -> Option<Freshness> {
        freshness(&asks(request)?, StatusCode::from_u16(status).unwrap(), &headers(response), came())
    }

    #[test]
    fn nothing_is_stored_that_the_app_did_not_give_a_time() {
        let good = ("cache-control", "max-age=60");
        for status in [200, 203, 301, 308, 404, 410] {
            assert_eq!(stored(&[], status, &[good]).unwrap().lifetime, 60 * SECOND);
        }
        for status in [201, 204, 206, 302, 304, 400, 403, 431, 500, 503] {
            assert_eq!(stored(&[], status, &[good]), None, "{status}");
        }
        for value in [
            "public",
            "max-age=0",
            "private, max-age=60",
            "Private=\"x\", max-age=60",
            "NO-STORE, max-age=60",
            "no-cache=\"x\", max-age=60",
            "max-age=60, x=\"",
            "s-maxage=0, max-age=60",
            "max-age=60, max-age=0",
            "immutable",
        ] {
            assert_eq!(stored(&[], 200, &[("cache-control", value)]), None, "{value}");
        }
        assert_eq!(stored(&[], 200, &[("last-modified", NOW), ("etag", "\"a\"")]), None);
        assert_eq!(stored(&[], 200, &[good, ("set-cookie", "a=b")]), None);
        assert_eq!(stored(&[], 200, &[good, ("content-type", "text/event-stream; charset=utf-8")]), None);
    }

    #[test]
    fn what_is_one_clients_is_not_everybodys() {
        let (good, public) = (("cache-control", "max-age=60"), ("cache-control", "max-age=60, public"));
        for who in [("authorization", "Basic eA=="), ("cookie", "session=1")] {
            assert_eq!(stored(&[who], 200, &[good]), None);
            assert!(stored(&[who], 200, &[public]).unwrap().for_all);
            assert!(stored(&[who], 200, &[("cache-control", "S-MaxAge=5")]).unwrap().for_all);
        }
        assert!(!stored(&[], 200, &[good]).unwrap().for_all);
        let origin = ("origin", "https://evil.example");
        let allowed = ("access-control-allow-origin", "https://evil.example");
        assert_eq!(stored(&[origin], 200, &[good, allowed]), None);
        assert!(stored(&[origin], 200, &[good, allowed, ("vary", "Accept, Origin")]).is_some());
        assert!(stored(&[origin], 200, &[good, ("access-control-allow-origin", "*")]).is_some());
        assert_eq!(stored(&[], 200, &[good, ("content-encoding", "gzip")]), None);
        let vary = ("vary", "accept-encoding");
        assert!(stored(&[], 200, &[good, ("content-encoding", "gzip"), vary]).is_some());
    }

    #[test]
    fn the_time_is_what_is_said_last_of_all_by_expires() {
        let later = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let date = ("date", NOW);
        assert_eq!(stored(&[], 200, &[later, date]).unwrap().lifetime, 60 * SECOND);
        assert_eq!(stored(&[], 200, &[later]).unwrap().lifetime, 60 * SECOND);
        assert_eq!(stored(&[], 200, &[("expires", "0"), date]), None);
        assert_eq!(stored(&[], 200, &[later, later, date]), None);
        let shared = ("cache-control", "max-age=1, s-maxage=7");
        assert_eq!(stored(&[], 200, &[later, date, shared]).unwrap().lifetime, 7 * SECOND);
        let old = [("cache-control", "max-age=60"), ("age", "20"), ("date", "Sun, 06 Nov 1994 08:49:07 GMT")];
        assert_eq!(stored(&[], 200, &old).unwrap().initial_age, 30 * SECOND, "by the date, which says more");
        let older = [("cache-control", "max-age=60"), ("age", "60")];
        assert_eq!(stored(&[], 200, &older), None, "it is stale as it comes");
    }

    #[test]
    fn what_may_be_used_when_the_app_fails_is_said_by_the_app() {
        let if_error = |value| stored(&[], 200, &[("cache-control", value)]).unwrap().if_error;
        assert_eq!(if_error("max-age=1, stale-if-error=9"), 9 * SECOND);
        for value in
            ["max-age=1", "max-age=1, stale-if-error=9, must-revalidate", "s-maxage=1, stale-if-error=9"]
        {
            assert_eq!(if_error(value), Duration::ZERO, "{value}");
        }
    }

    #[test]
    fn requests_that_a_stored_answer_cannot_be_for_go_by() {
        for line in [
            ("range", "bytes=0-1"),
            ("if-range", "\"a\""),
            ("if-match", "\"a\""),
            ("if-unmodified-since", NOW),
            ("cache-control", "No-Store"),
            ("upgrade", "websocket"),
            ("berth-release", "v1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-host", "evil.example"),
            ("x-forwarded-scheme", "http"),
            ("accept_encoding", "gzip"),
        ] {
            assert_eq!(asks(&[line]), None, "{line:?}");
        }
        assert_eq!(Asks::of(&Method::POST, &HeaderMap::new(), false), None);
        assert_eq!(Asks::of(&Method::GET, &HeaderMap::new(), true), None, "one that carries something");
        assert!(asks(&[("x-requested-with", "fetch"), ("x-forwarded-host", "shop.com")]).is_some());
    }

    #[test]
    fn a_client_may_want_it_fresher() {
        let fresh = stored(&[], 200, &[("cache-control", "max-age=60")]).unwrap();
        let takes = |value: &str, age: u64| {
            asks(&[("cache-control", value)]).unwrap().takes(&fresh, Duration::from_secs(age))
        };
        assert!(takes("", 59) && !takes("", 60));
        assert!(takes("max-age=10", 10) && !takes("max-age=10", 11));
        assert!(takes("min-fresh=10", 50) && !takes("min-fresh=10", 51));
        assert!(!takes("no-cache", 0) && takes("max-stale", 1) && !takes("max-stale", 61));
        assert!(!asks(&[("pragma", "no-cache")]).unwrap().takes(&fresh, Duration::ZERO));
    }

    #[test]
    fn an_answer_is_for_requests_that_are_alike_in_all_that_it_depends_on() {
        let request = headers(&[("accept-language", "de"), ("accept-language", "en"), ("x-a", "1")]);
        let vary = [("vary", "Accept-Language"), ("vary", "x-b, X-A")];
        let selecting = Selecting::of(&request, &headers(&vary)).unwrap();
        assert!(selecting.selects(&request));
        for (name, value) in [("accept-language", "fr"), ("x-b", ""), ("x-a", "2")] {
            let mut other = request.clone();
            other.append(HeaderName::from_static(name), value.parse().unwrap());
            assert!(!selecting.selects(&other), "{name}");
        }
        assert!(Selecting::of(&request, &HeaderMap::new()).unwrap().selects(&HeaderMap::new()));
        for vary in ["*", "a, *", "a b", "a,b,c,d,e,f,g,h,i"] {
            assert_eq!(Selecting::of(&request, &headers(&[("vary", vary)])), None, "{vary}");
        }
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        let stored = headers(&[("etag", "W/\"a\""), ("last-modified", NOW)]);
        let has = |line: (&str, &str)| is_unchanged(&headers(&[line]), &stored);
        assert!(has(("if-none-match", "\"b\", \"a\"")) && has(("if-none-match", "*")));
        assert!(has(("if-modified-since", NOW)));
        assert!(
            !has(("if-none-match", "\"b\"")) && !has(("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT"))
        );
        assert!(!has(("if-modified-since", "yesterday")) && !is_unchanged(&HeaderMap::new(), &stored));
        let both = headers(&[("if-none-match", "\"b\""), ("if-modified-since", NOW)]);
        assert!(!is_unchanged(&both, &stored), "the tag says more than the date");
    }
}
