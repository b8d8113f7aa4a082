//! `[http.cache]`: that answers are stored, and in how much memory.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::read::{Section, text};
use crate::problem::Wrong;
use crate::unit::Bytes;

const SIZE: Bytes = Bytes(32 << 20);
const SIZE_MIN: Bytes = Bytes(1 << 20);
const SIZE_MAX: Bytes = Bytes(256 << 20);
const BODY: Bytes = Bytes(1 << 20);
const BODY_MIN: Bytes = Bytes(1 << 10);

/// What an app's answers are stored in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCache {
    /// How much memory they take.
    pub size: Bytes,
    /// A longer body is not stored.
    pub max_body: Bytes,
}

pub(super) fn cache(section: &mut Section<'_, '_, '_>) -> HttpCache {
    let size = section.get("size", |value| size(value, SIZE_MIN, SIZE_MAX)).unwrap_or(SIZE);
    let max_body = section.get("max_body", |value| self::size(value, BODY_MIN, size));
    HttpCache { size, max_body: max_body.unwrap_or(BODY.min(size)) }
}

fn size(value: &DeValue<'_>, least: Bytes, most: Bytes) -> Result<Bytes, Wrong> {
    let size: Bytes =
        text(value)?.parse().map_err(|bad| Wrong::new(bad).instead("write it like \"512Ki\" or \"64Mi\""))?;
    if (least..=most).contains(&size) {
        return Ok(size);
    }
    Err(Wrong::new(format!("{size} is not within {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn a_cache_is_there_when_it_is_named() {
        assert_eq!(Manifest::parse("[http]\n").unwrap().http.cache, None);
        let cache = |text: &str| Manifest::parse(&format!("[http.cache]\n{text}")).unwrap();
        let manifest = cache("");
        assert_eq!(manifest.http.cache, Some(HttpCache { size: SIZE, max_body: BODY }));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        assert!(!serde_json::to_string(&Manifest::default()).unwrap().contains("cache"));
        let manifest = cache("size = \"64Mi\"\nmax_body = \"2Mi\"\n");
        assert_eq!(manifest.http.cache, Some(HttpCache { size: Bytes(64 << 20), max_body: Bytes(2 << 20) }));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
    }

    #[test]
    fn sizes_that_edge_would_not_have_are_refused() {
        for (text, what) in [
            ("size = \"1Gi\"", "1Gi is not within 1Mi to 256Mi"),
            ("size = \"1Ki\"", "1Ki is not within 1Mi to 256Mi"),
            ("size = \"2Mi\"\nmax_body = \"3Mi\"", "3Mi is not within 1Ki to 2Mi"),
            ("size = 5", "expected a string"),
            ("ttl = \"1m\"", "unknown key `http.cache.ttl`"),
        ] {
            let told = Manifest::parse(&format!("[http.cache]\n{text}\n")).unwrap_err().to_string();
            assert!(told.contains(what), "{told}");
        }
    }
}
