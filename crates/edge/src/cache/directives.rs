//! `Cache-Control`: the directives that a cache between an app and its clients goes by (RFC 9111, 5.2).

use std::time::Duration;

use http::header::{self, HeaderMap};

/// What the `Cache-Control` of a message says. Names count in any case, and a directive with an argument as one without: what says
/// `private="x-field"` is private.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    /// `must-revalidate` or `proxy-revalidate`: never stale.
    pub(super) must_revalidate: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    /// Whether it could not be read to its end.
    pub(super) broken: bool,
}

impl Directives {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        let mut values = headers.get_all(header::CACHE_CONTROL).iter().peekable();
        if values.peek().is_none() {
            // Of before HTTP/1.1 (RFC 9111, 5.4).
            let pragma = headers.get_all(header::PRAGMA).iter();
            read.no_cache = pragma.flat_map(|it| parts(it.as_bytes())).any(|it| is(it.0, "no-cache"));
        }
        for (part, is_whole) in values.flat_map(|value| parts(value.as_bytes())) {
            read.broken |= !is_whole;
            read.take(part);
        }
        read
    }

    fn take(&mut self, part: &[u8]) {
        let at = part.iter().position(|byte| *byte == b'=');
        let (name, value) = part.split_at(at.unwrap_or(part.len()));
        let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
        let span = match name.to_ascii_lowercase().as_slice() {
            b"no-store" => return self.no_store = true,
            b"no-cache" => return self.no_cache = true,
            b"only-if-cached" => return self.only_if_cached = true,
            b"private" => return self.private = true,
            b"public" => return self.public = true,
            b"must-revalidate" | b"proxy-revalidate" => return self.must_revalidate = true,
            b"max-age" => &mut self.max_age,
            b"s-maxage" => &mut self.s_maxage,
            b"min-fresh" => &mut self.min_fresh,
            b"stale-if-error" => &mut self.stale_if_error,
            _ => return,
        };
        // Of two that contradict each other the lesser holds (4.2.1 has such a response count as stale, or the first one).
        let seconds = seconds(value).unwrap_or_default();
        *span = Some(span.map_or(seconds, |before| before.min(seconds)));
    }
}

/// Seconds as the field has them (1.2.2): digits, of which more than 2^31 count as that; the quoted form is taken, too.
pub(super) fn seconds(value: &[u8]) -> Option<Duration> {
    let bare = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value);
    if bare.is_empty() || !bare.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(bare).ok()?.parse::<u64>().unwrap_or(u64::MAX);
    Some(Duration::from_secs(number.min(1 << 31)))
}

/// The members of a list (RFC 9110, 5.6.1), a comma within quotation marks being none between two; and whether each is whole.
fn parts(value: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let all = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = all.iter().position(|byte| {
            let ends = *byte == b',' && !quoted;
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            ends
        });
        let (part, after) = all.split_at(end.unwrap_or(all.len()));
        rest = end.and(after.get(1..));
        Some((part.trim_ascii(), !quoted))
    })
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// The names in a list of names, in small letters.
pub(super) fn names<'h>(headers: &'h HeaderMap, list: &header::HeaderName) -> impl Iterator<Item = Vec<u8>> {
    let values: Vec<&'h [u8]> = headers.get_all(list).iter().map(|value| value.as_bytes()).collect();
    let names = values.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
    names.map(|name| name.trim_ascii().to_ascii_lowercase()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&[u8]]) -> Directives {
        let value = |line: &&[u8]| (header::CACHE_CONTROL, http::HeaderValue::from_bytes(line).unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(value) {
            headers.append(name, value);
        }
        Directives::of(&headers)
    }

    #[test]
    fn names_count_in_any_case_and_lists_over_lines() {
        let all = read(&[b"Private, MAX-AGE=60", b" No-Store ,, s-maxage=\"5\"\t"]);
        assert!(all.private && all.no_store && !all.public && !all.broken);
        assert_eq!(
            (all.max_age, all.s_maxage),
            (Some(Duration::from_secs(60)), Some(Duration::from_secs(5)))
        );
        assert!(read(&[b"private=\"a, no-store\"", b"x=\xe9, no-cache"]).no_cache);
        let quoted = read(&[b"x=\"no-store, \\\", private\", public"]);
        assert!(quoted.public && !quoted.no_store && !quoted.private && !quoted.broken);
        assert!(read(&[b"public, x=\"max-age=5"]).broken);
    }

    #[test]
    fn what_is_no_number_is_nought_and_of_two_the_lesser_counts() {
        for (text, wanted) in [
            ("max-age=x", 0),
            ("max-age", 0),
            ("max-age=-1", 0),
            ("max-age=1.5", 0),
            ("max-age=99999999999999999999", 1 << 31),
            ("max-age=60, max-age=5", 5),
            ("max-age = 7", 7),
        ] {
            assert_eq!(read(&[text.as_bytes()]).max_age, Some(Duration::from_secs(wanted)), "{text}");
        }
    }

    #[test]
    fn pragma_counts_where_nothing_else_is_said() {
        let mut headers = HeaderMap::from_iter([(header::PRAGMA, "No-Cache".parse().unwrap())]);
        assert!(Directives::of(&headers).no_cache);
        headers.insert(header::CACHE_CONTROL, "max-age=5".parse().unwrap());
        assert!(!Directives::of(&headers).no_cache);
    }

    proptest! {
        /// Whatever stands around it, what says `no-store` outside of quotation marks says it.
        #[test]
        fn a_word_is_found_among_any_others(
            before in "([a-z-]{1,9}(=[0-9]{1,3}|=\"[a-z, ]{0,5}\")?,[ \t]?){0,3}", after in "(,[ -~]{0,9}){0,2}",
        ) {
            let text = format!("{before}No-Store{after}");
            prop_assert!(read(&[text.as_bytes()]).no_store, "{}", text);
        }

        #[test]
        fn anything_is_read_to_an_end(text in "[ -~]{0,60}") {
            let _whatever = read(&[text.as_bytes()]);
        }
    }
}
