//! Where HTTPS is served.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far the port of HTTPS is from that of HTTP where nobody says it: 80 and 443, 8080 and 8443.
const APART: u16 = 443 - 80;

/// Where HTTPS is served, if at all: `0.0.0.0:443`, `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpsAddress {
    /// Nowhere.
    Off,
    /// There; port 0 for any that is free.
    At(SocketAddr),
}

/// A text is neither an address nor `off`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address with a port, like 0.0.0.0:443, nor off")]
pub struct InvalidHttpsAddress(String);

impl HttpsAddress {
    /// Where it is served when HTTP is at `http` and nothing else is said.
    #[must_use]
    pub fn beside(http: SocketAddr) -> Self {
        let port = match http.port() {
            0 => Some(0),
            port => port.checked_add(APART),
        };
        port.map_or(Self::Off, |port| Self::At(SocketAddr::new(http.ip(), port)))
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl fmt::Display for HttpsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for HttpsAddress {
    type Err = InvalidHttpsAddress;
    fn from_str(text: &str) -> Result<Self, InvalidHttpsAddress> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_address| InvalidHttpsAddress(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for HttpsAddress {
    type Error = InvalidHttpsAddress;
    fn try_from(text: String) -> Result<Self, InvalidHttpsAddress> {
        text.parse()
    }
}

impl From<HttpsAddress> for String {
    fn from(address: HttpsAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_beside_http_as_443_is_beside_80() {
        for (http, https) in [
            ("0.0.0.0:80", "0.0.0.0:443"),
            ("127.0.0.1:8080", "127.0.0.1:8443"),
            ("[::]:0", "[::]:0"),
            ("127.0.0.1:65535", "off"),
        ] {
            assert_eq!(HttpsAddress::beside(http.parse().unwrap()).to_string(), https);
            assert_eq!(https.parse::<HttpsAddress>().unwrap().to_string(), https);
        }
        for text in ["", "on", "443", "example.com:443"] {
            assert!(text.parse::<HttpsAddress>().is_err(), "{text}");
        }
    }
}
