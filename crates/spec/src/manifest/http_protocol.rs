//! `http.protocol`: which version of HTTP the web process speaks.

use serde::{Deserialize, Serialize};

/// What is spoken to an instance. A routing snapshot says it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS and without asking first (RFC 9113, 3.3), as servers of gRPC expect it.
    H2c,
}

impl HttpProtocol {
    /// All of them, with their names in berth.toml.
    pub const NAMED: [(&'static str, Self); 2] = [("http1", Self::Http1), ("h2c", Self::H2c)];

    /// The name that berth.toml has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, it)| *it == self).map_or("http1", |(name, _)| name)
    }

    /// Whether it is what an app has that says nothing of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn a_protocol_is_read_and_written() {
        let manifest = Manifest::parse("[http]\nprotocol = \"h2c\"\n").unwrap();
        assert_eq!(manifest.http.protocol, HttpProtocol::H2c);
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert!(json.contains(r#""protocol":"h2c""#), "{json}");
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        assert_eq!(Manifest::parse("[http]\nprotocol = \"http1\"\n").unwrap(), Manifest::default());
        let none = serde_json::to_string(&Manifest::default()).unwrap();
        assert!(!none.contains("protocol"), "the version before reads what speaks HTTP/1");
    }

    #[test]
    fn another_protocol_is_refused_with_those_that_are() {
        let told = Manifest::parse("[http]\nprotocol = \"grpc\"\n").unwrap_err().to_string();
        assert!(told.contains("http1") && told.contains("h2c"), "{told}");
    }
}
