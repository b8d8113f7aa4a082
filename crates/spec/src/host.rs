//! Host names as people write them, in the one form that they are kept in.
//!
//! `Shop.Example.COM.`, `shop.example.com` and, for a name that is not ASCII, `bücher.example` and `xn--bcher-kva.example` are one host
//! each. Everything behind this module compares bytes: two spellings of one host that got past it would be two apps' hosts.

use std::fmt;
use std::str::FromStr;

use idna::AsciiDenyList;
use serde::{Deserialize, Serialize};

/// What a wildcard begins with.
const ANY: &str = "*.";

/// A host name in lower case, ASCII, without port and trailing dot; `*.example.com` stands for every name with exactly one label more.
///
/// One label and no more, as certificates have it (RFC 9525): what a wildcard answers for is what one certificate can be had for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why a text is not a [`HostName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// It is no name that DNS could have.
    #[error("{0:?} is not a host name")]
    Name(String),
    /// A wildcard that is more than one whole label, or stands for all of a top-level domain.
    #[error("{0:?} is not a wildcard that a host may have: write one like \"*.example.com\"")]
    Wildcard(String),
}

impl HostName {
    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for many names.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(ANY)
    }

    /// Whether it is a wildcard that stands for `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let below = self.0.strip_prefix(ANY);
        below.is_some_and(|below| {
            other.0.split_once('.').is_some_and(|(label, rest)| label != "*" && rest == below)
        })
    }
}

impl FromStr for HostName {
    type Err = InvalidHost;
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let given = || text.chars().take(80).collect::<String>();
        if let Some(below) = text.strip_prefix(ANY) {
            let below = name(below).filter(|below| below.contains('.'));
            return below
                .map(|below| Self(format!("{ANY}{below}")))
                .ok_or_else(|| InvalidHost::Wildcard(given()));
        }
        if text.contains('*') {
            return Err(InvalidHost::Wildcard(given()));
        }
        name(text).map(Self).ok_or_else(|| InvalidHost::Name(given()))
    }
}

fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    // Long before the rules of Unicode are asked, which take time in the length of what they are given.
    if text.len() > 1_000 {
        return None;
    }
    let plain =
        text.is_ascii() && !text.to_ascii_lowercase().split('.').any(|label| label.starts_with("xn--"));
    let ascii = if plain {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::STD3).ok()?.into_owned()
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The last label of an IPv4 address is a number; a host may not look like one (RFC 1123 section 2.1).
    let last_has_letter =
        ascii.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()));
    (ascii.len() <= 253 && last_has_letter && ascii.split('.').all(label)).then_some(ascii)
}

impl TryFrom<String> for HostName {
    type Error = InvalidHost;
    fn try_from(text: String) -> Result<Self, InvalidHost> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> Self {
        host.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> HostName {
        text.parse().unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn every_spelling_is_kept_in_one_form() {
        for (given, kept) in [
            ("Shop.Example.COM", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop", "shop"),
            ("B\u{fc}cher.example", "xn--bcher-kva.example"),
            ("b\u{fc}cher.example.", "xn--bcher-kva.example"),
            ("XN--Bcher-KVA.example", "xn--bcher-kva.example"),
            ("fa\u{df}.de", "xn--fa-hia.de"),
            ("\u{4f8b}\u{3048}\u{3002}\u{30c6}\u{30b9}\u{30c8}", "xn--r8jz45g.xn--zckzah"),
            ("*.Example.com", "*.example.com"),
            ("*.b\u{fc}cher.example", "*.xn--bcher-kva.example"),
        ] {
            assert_eq!(host(given).as_str(), kept, "{given}");
        }
    }

    #[test]
    fn what_dns_could_not_have_is_refused() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long = format!("{}com", "abcdefgh.".repeat(30));
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a b.com",
            "a/b",
            "a:80",
            "127.0.0.1",
            "1",
            "xn--a-.example",
            "xn--zzzzzzzzzzz.com",
            "a\u{200b}\u{ad}.-",
            "\u{1f}.com",
            &long_label,
            &long,
        ] {
            assert!(matches!(bad.parse::<HostName>(), Err(InvalidHost::Name(_))), "{bad:?}");
        }
        for bad in ["*", "*.", "*.com", "*.*.com", "a.*.com", "*a.com", "*.localhost", "*.1.2"] {
            assert!(matches!(bad.parse::<HostName>(), Err(InvalidHost::Wildcard(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label_more() {
        let any = host("*.example.com");
        assert!(any.covers(&host("shop.example.com")));
        for other in
            ["example.com", "a.shop.example.com", "shop.example.org", "*.example.com", "*.shop.example.com"]
        {
            assert!(!any.covers(&host(other)), "{other}");
        }
        assert!(!host("shop.example.com").covers(&host("shop.example.com")));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_kept_as_it_is(text in "(\\*\\.)?[a-zA-Z0-9\u{e4}\u{df}.\u{301}-]{1,30}") {
            if let Ok(host) = text.parse::<HostName>() {
                prop_assert_eq!(host.as_str().parse::<HostName>().unwrap(), host);
            }
        }
    }
}
