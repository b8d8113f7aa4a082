//! Which paths a rule is about.

/// A path as a client wrote it, and as an app may read it.
///
/// A rule is to hold for what the app takes for its path, and apps differ: one decodes and another does not, one cuts `;` and what follows
/// (RFC 3986, 3.3, as servlets do), one resolves `..` before it decodes and another one after. So a rule is about each path that *some* app may
/// take for its own. What differs from that only in the case of letters is the same, since for many frameworks it is.
#[derive(Debug)]
pub struct Asked<'p> {
    written: &'p str,
    plain: Option<Plain>,
}

/// A path without what can be written in another way.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    /// Segments, each behind a slash: decoded, none empty, `.`, or with parameters.
    text: String,
    /// Whether `..` is among them.
    climbs: bool,
}

impl<'p> Asked<'p> {
    /// Nothing is allocated for a path that can be read in one way alone.
    #[must_use]
    pub fn new(path: &'p str) -> Self {
        let has = |text| path.contains(text);
        let is_plain = !path.contains(['%', ';', '\\']) && !has("//") && !has("/.");
        Self { written: path, plain: (!is_plain).then(|| plain(path)) }
    }

    /// Whether some app may take it for `prefix` or for something below it. `/api` is about `/api` and `/api/users`, and not about `/apis`.
    ///
    /// Where `..` is in the path, which browsers resolve before they ask, it may be about every prefix whose segments stand in it in their
    /// order: whatever an app makes of it is what is left when segments are taken away.
    #[must_use]
    pub fn is_below(&self, prefix: &str) -> bool {
        let read = self.plain.as_ref().is_some_and(|plain| match plain.climbs {
            true => may_become(&plain.text, prefix),
            false => begins(&plain.text, prefix),
        });
        read || self.is_written_below(prefix)
    }

    /// Whether it is written as `prefix` or as something below it.
    pub(crate) fn is_written_below(&self, prefix: &str) -> bool {
        begins(self.written, prefix)
    }

    /// Whether no app reads it otherwise than another.
    pub(crate) fn is_certain(&self) -> bool {
        self.plain.is_none()
    }

    /// Whether it has `..` in it.
    pub(crate) fn climbs(&self) -> bool {
        self.plain.as_ref().is_some_and(|plain| plain.climbs)
    }
}

fn begins(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let Some((first, rest)) = path.as_bytes().split_at_checked(prefix.len()) else { return false };
    first.eq_ignore_ascii_case(prefix) && matches!(rest.first(), None | Some(b'/'))
}

fn may_become(path: &str, prefix: &str) -> bool {
    let mut segments = path.split('/');
    let mut wanted = prefix.split('/').filter(|segment| !segment.is_empty());
    wanted.all(|wanted| segments.any(|segment| segment.eq_ignore_ascii_case(wanted)))
}

fn plain(path: &str) -> Plain {
    let decoded = decoded(path);
    let mut plain = Plain { text: String::with_capacity(decoded.len()), climbs: false };
    // Some programs take a backslash for a slash.
    for segment in decoded.split(['/', '\\']) {
        let segment = segment.split(';').next().unwrap_or_default();
        if matches!(segment, "" | ".") {
            continue;
        }
        plain.climbs |= segment == "..";
        plain.text.push('/');
        plain.text.push_str(segment);
    }
    plain
}

/// Decoded once, as apps do.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = code.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_below(path: &str, prefix: &str) -> bool {
        Asked::new(path).is_below(prefix)
    }

    #[test]
    fn a_prefix_is_about_whole_segments() {
        for below in ["/api", "/api/", "/api/users"] {
            assert!(is_below(below, "/api") && is_below(below, "/api/"), "{below}");
        }
        assert!(!is_below("/apis", "/api") && !is_below("/", "/api") && !is_below("/x/api", "/api"));
        assert!(is_below("/", "/") && is_below("/anything", "/") && !is_below("*", "/"));
    }

    #[test]
    fn there_is_no_way_around_by_writing_it_otherwise() {
        for disguised in [
            "//login",
            "/%6Cogin",
            "/%6cogin",
            "/./login",
            "/x/../login",
            "/%2e/login",
            "/x/%2E%2e/login",
            "/login/.",
            "/%2Flogin",
            "/\\login",
            "/login%2Fx",
            "/../../login",
            "/Login",
            "/LOGIN/x",
            "/login;jsessionid=1",
            "/;x/login",
            "/x/..;/login",
            "/login%3bx",
            "/login/../x",
            "/a/%2e%2e/../login",
        ] {
            assert!(is_below(disguised, "/login"), "{disguised}");
        }
        for other in
            ["/login%", "/%zzlogin", "/%+6cogin", "/logi%6", "/x;/login", "/x//login", "/%256Cogin", "/%20"]
        {
            assert!(!is_below(other, "/login"), "{other}");
        }
        assert!(is_below("/a/x/../b", "/a/b") && !is_below("/b/../a", "/a/b"));
    }

    proptest! {
        #[test]
        fn any_path_has_an_answer(path in any::<String>(), prefix in any::<String>()) {
            let _either = is_below(&path, &prefix);
        }
    }
}
