//! What a registry asks for in `WWW-Authenticate`; see RFC 9110, 11.6.1.

use std::collections::BTreeMap;

/// A challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token from this service.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads a header. `Bearer` goes before `Basic`; none when there is neither.
    pub(crate) fn read(header: &str) -> Option<Self> {
        let (mut rest, mut basic) = (header, None);
        while let Some((scheme, parameters, after)) = one(rest) {
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameters.get("realm")
            {
                let of = |name: &str| parameters.get(name).cloned();
                return Some(Self::Bearer {
                    realm: realm.clone(),
                    service: of("service"),
                    scope: of("scope"),
                });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
            rest = after;
        }
        basic
    }
}

/// The first challenge, and what follows it.
fn one(text: &str) -> Option<(&str, BTreeMap<String, String>, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (scheme, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.is_empty() {
        return None;
    }
    let mut parameters = BTreeMap::new();
    loop {
        let at = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = at.split_once('=') else { return Some((scheme, parameters, at)) };
        let name = name.trim_end();
        if name.is_empty() || name.contains([' ', ',', '"']) {
            // The next scheme begins here.
            return Some((scheme, parameters, at));
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, after) = after.split_once(',').unwrap_or((after, ""));
                (value.trim().to_owned(), after)
            }
        };
        parameters.insert(name.to_ascii_lowercase(), value);
        rest = after;
    }
}

/// A quoted string up to its end, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.chars());
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_real_registries() {
        let bearer = |realm: &str, service: &str, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: Some(service.into()),
                scope: scope.map(Into::into),
            })
        };
        for (header, read) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (r#"Basic realm="x, y", Bearer realm="https://b", service=c"#, bearer("https://b", "c", None)),
            (r#"bearer service="s", realm="h\"i""#, bearer("h\"i", "s", None)),
            ("Basic realm=x", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            ("Bearer", None),
            ("", None),
        ] {
            assert_eq!(Challenge::read(header), read, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_a_panic_or_an_endless_loop(header in "\\PC{0,60}|[Ba-z=\", \\\\]{0,40}") {
            let _read = Challenge::read(&header);
        }
    }
}
