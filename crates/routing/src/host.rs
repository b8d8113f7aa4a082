//! Host names as requests bring them: checked, without port, in lower case.

use std::borrow::Cow;

use thiserror::Error;

/// Why the value of a `Host` header, or the authority of a request target, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidHost {
    /// There is no name in it.
    #[error("the host is empty")]
    Empty,
    /// Longer than a DNS name may be.
    #[error("the host is longer than 255 bytes")]
    TooLong,
    /// A byte that no host name contains; user information ends here too.
    #[error("the host contains a character that no host name has")]
    Character,
    /// What follows the colon is not a port.
    #[error("the port of the host is not a number")]
    Port,
}

/// The host in `authority` as [`crate::Host`] spells it: lower case, without port and without the root's dot.
///
/// An IPv6 literal keeps its brackets. Nothing is decoded: a percent sign is refused, because the app behind would
/// see another name than the one that was routed by.
///
/// # Errors
/// [`InvalidHost`] when `authority` is not `host` or `host:port`.
pub fn normalise(authority: &[u8]) -> Result<Cow<'_, str>, InvalidHost> {
    let (host, port) = split_port(authority);
    if port.len() > 5 || !port.iter().all(u8::is_ascii_digit) {
        return Err(InvalidHost::Port);
    }
    if host.len() > 255 {
        return Err(InvalidHost::TooLong);
    }
    let host = match host {
        [rest @ .., b'.'] if rest.last() != Some(&b'.') => rest,
        _ => host,
    };
    if host.is_empty() {
        return Err(InvalidHost::Empty);
    }
    let literal = host.first() == Some(&b'[');
    let mut upper = false;
    for (at, byte) in host.iter().enumerate() {
        let fits = match byte {
            b'A'..=b'Z' => {
                upper = true;
                true
            }
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => true,
            b'.' => at > 0 && host.get(at - 1) != Some(&b'.'),
            b'[' => literal && at == 0,
            b']' => literal && at == host.len() - 1 && at > 1,
            b':' => literal,
            _ => false,
        };
        if !fits {
            return Err(InvalidHost::Character);
        }
    }
    if literal && host.last() != Some(&b']') {
        return Err(InvalidHost::Character);
    }
    let host = std::str::from_utf8(host).map_err(|_not_ascii| InvalidHost::Character)?;
    Ok(if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.last() != Some(&b']') => {
            let (host, port) = authority.split_at(colon);
            (host, port.get(1..).unwrap_or_default())
        }
        _ => (authority, &[]),
    }
}

/// The first label of a name under `localhost`, which is what a `label.*` host matches.
pub(crate) fn local_label(host: &str) -> Option<&str> {
    let (label, rest) = host.split_once('.')?;
    (rest == "localhost" || rest.ends_with(".localhost")).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_case_and_the_roots_dot_do_not_matter() {
        for (authority, host) in [
            ("shop.example.com", "shop.example.com"),
            ("Shop.Example.COM:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop.example.com.:443", "shop.example.com"),
            ("shop.example.com:", "shop.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(normalise(authority.as_bytes()).as_deref(), Ok(host), "{authority}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for bad in [
            "", ":80", ".", "..", "a..b", ".a", "a b", "a/b", "user@a", "a,b", "a:b", "a:80:80", "a:123456",
            "%61", "[::1", "::1", "a\u{e9}", "[]", "a]", "a\t",
        ] {
            assert!(normalise(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(normalise("a".repeat(256).as_bytes()), Err(InvalidHost::TooLong));
    }

    #[test]
    fn a_label_counts_only_under_localhost() {
        assert_eq!(local_label("shop.localhost"), Some("shop"));
        assert_eq!(local_label("shop.blue.localhost"), Some("shop"));
        for host in ["localhost", "shop.notlocalhost", "shop.localhost.evil.com", "shop"] {
            assert_eq!(local_label(host), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(authority in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(host) = normalise(&authority) {
                prop_assert_eq!(normalise(host.as_bytes()), Ok(host.clone()));
                prop_assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' '));
            }
        }

        #[test]
        fn every_plain_name_is_taken(name in "[a-z0-9]{1,10}(\\.[a-z0-9-]{1,10}){0,3}", port in any::<u16>()) {
            let authority = format!("{name}:{port}");
            prop_assert_eq!(normalise(authority.as_bytes()), Ok(Cow::Borrowed(name.as_str())));
        }
    }
}
