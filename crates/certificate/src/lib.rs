//! Certificates: read and checked, made for this machine alone, and had from an ACME server.
//!
//! Bytes come in and go out; where they are kept, and for which hosts there is to be a certificate, is for the user of this
//! crate to say. Times are seconds since 1970 and come from the caller.
#![warn(missing_docs)]

#[cfg(feature = "acme")]
pub mod acme;
mod local;
mod pair;
mod request;

pub use local::{AUTHORITY, AuthorityError, LocalAuthority};
pub use pair::{Pair, PairError, RenewalName};
pub use request::{ALPN_PROTOCOL, challenge_key, request};

/// A certificate could not be made. It is what the library that makes it says; nothing a user does leads here.
#[derive(Debug, thiserror::Error)]
#[error("the certificate could not be made: {0}")]
pub struct MakeError(#[from] rcgen::Error);

/// The moment that is so many seconds after 1970, as the library takes it; one that it cannot say is its last.
fn moment(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::PrimitiveDateTime::MAX.assume_utc())
}
