//! Which paths a rule is about.

use std::borrow::Cow;

/// Whether a request for `path` is one for `prefix` or for something below it. `/api` is about `/api` and `/api/users`, and not about `/apis`.
///
/// Both are compared as the app will read the path, whatever the way in which it is written: percent-encoded, with empty segments, or with
/// `.` and `..`. A rule for `/login` that `/%6Cogin` or `//login` got around would be none.
#[must_use]
pub fn is_below(path: &str, prefix: &str) -> bool {
    let path = plain(path);
    let prefix = prefix.trim_end_matches('/');
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The path without what can be written in another way. Letters keep their case.
#[must_use]
pub fn plain(path: &str) -> Cow<'_, str> {
    let is_plain =
        !path.contains('%') && !path.contains("//") && !path.contains("/.") && !path.contains('\\');
    if is_plain {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    // Some programs take a backslash for a slash.
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let mut plain = String::with_capacity(decoded.len());
    for segment in segments {
        plain.push('/');
        plain.push_str(segment);
    }
    Cow::Owned(if plain.is_empty() { "/".to_owned() } else { plain })
}

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

    #[test]
    fn a_prefix_is_about_whole_segments() {
        for below in ["/api", "/api/", "/api/users"] {
            assert!(is_below(below, "/api") && is_below(below, "/api/"), "{below}");
        }
        assert!(!is_below("/apis", "/api") && !is_below("/", "/api") && !is_below("/x/api", "/api"));
        assert!(is_below("/", "/") && is_below("/anything", "/"));
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
        ] {
            assert!(is_below(disguised, "/login"), "{disguised}");
        }
        for other in ["/login%", "/%zzlogin", "/%+6cogin", "/logi%6", "/login/../x", "/Login"] {
            assert!(!is_below(other, "/login"), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_stays_as_it_is(path in "(/[a-z%./\\\\2eEF]{0,3}){0,5}") {
            let once = plain(&path).into_owned();
            // A percent sign that was encoded itself is decoded once, as apps do.
            prop_assume!(!once.contains('%'));
            let twice = plain(&once).into_owned();
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn any_path_has_an_answer(path in any::<String>(), prefix in any::<String>()) {
            let _either = is_below(&path, &prefix);
        }
    }
}
