//! Sending source: chunks first, only those that are missing, then the tree that names them.
//!
//! The tree itself is the canonical JSON of a source tree and is defined where trees are walked; here it is a body that the
//! platform hashes, checks and stores as it came.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many hashes one question may hold: 64 hex digits and their quotes stay below a megabyte.
pub const CHUNKS_QUERY_MAX: usize = 10_000;

/// Why a string is not the id of a chunk or a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {form}")]
pub struct InvalidHash {
    given: String,
    form: &'static str,
}

macro_rules! hashes {
    ($($(#[$doc:meta])* $name:ident($prefix:literal, $form:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidHash;
            fn from_str(text: &str) -> Result<Self, InvalidHash> {
                let digits = text.strip_prefix($prefix).unwrap_or_default();
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if digits.len() == 64 && digits.bytes().all(hex) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidHash { given: text.chars().take(80).collect(), form: $form })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidHash;
            fn try_from(text: String) -> Result<Self, InvalidHash> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(hash: $name) -> Self {
                hash.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

hashes! {
    /// The id of a chunk: the SHA-256 of its bytes as 64 lower-case hex digits.
    ChunkHash("", "64 lower-case hex digits");
    /// The id of a source tree: `t` and the SHA-256 of its canonical JSON as 64 lower-case hex digits.
    TreeId("t", "t and 64 lower-case hex digits");
}

/// Asks which of these chunks the tenant does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChunksQuery {
    /// At most [`CHUNKS_QUERY_MAX`] hashes.
    #[schema(value_type = Vec<String>, max_items = 10_000)]
    pub chunks: Vec<ChunkHash>,
}

/// The chunks that have to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunksMissing {
    /// Their hashes, in the order they were asked for.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<ChunkHash>,
}

/// A tree was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeCreated {
    /// Its id.
    #[schema(value_type = String)]
    pub tree: TreeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_checked_where_they_enter() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(digits.parse::<ChunkHash>().unwrap().as_str(), digits);
        assert_eq!(format!("t{digits}").parse::<TreeId>().unwrap().to_string(), format!("t{digits}"));
        assert!(digits.parse::<TreeId>().is_err());
        for bad in ["", "..", &digits.to_uppercase(), &format!("{digits}0"), &digits.replace('0', "/")] {
            assert!(bad.parse::<ChunkHash>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<ChunkHash>(serde_json::json!(bad)).is_err());
        }
    }
}
