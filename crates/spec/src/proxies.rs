//! Which proxies before the platform are believed when they say who their clients are.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// More are a list that nobody looks after; each connection is compared with all of them.
const MOST: usize = 64;

/// The networks of the proxies that are believed: `10.0.0.0/8,192.0.2.7`, or `off` for none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxies(Vec<IpNet>);

/// A text that is no such list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxies {
    /// A part is no network.
    #[error("{0:?} is neither an address nor a network, like 192.0.2.7 or 10.0.0.0/8, nor off")]
    Part(String),
    /// The part of a network's address that stands for its machines is not nought.
    #[error("{0} has more digits than its network; did you mean {1}?")]
    Host(IpNet, IpNet),
    /// It has too many.
    #[error("there may be at most {MOST} networks of proxies")]
    Many,
}

impl Proxies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is one of theirs.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("off");
        }
        let one = |network: &IpNet| match network.prefix_len() == network.max_prefix_len() {
            true => network.addr().to_string(),
            false => network.to_string(),
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Proxies {
    type Err = InvalidProxies;
    fn from_str(text: &str) -> Result<Self, InvalidProxies> {
        if text == "off" {
            return Ok(Self::default());
        }
        let networks = text.split(',').map(network).collect::<Result<Vec<_>, _>>()?;
        if networks.len() > MOST { Err(InvalidProxies::Many) } else { Ok(Self(networks)) }
    }
}

/// One of the list. `10.1.2.3/8` is refused: whoever wrote it meant one of two things.
fn network(part: &str) -> Result<IpNet, InvalidProxies> {
    let part = part.trim();
    if let Ok(address) = part.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let invalid = |_parse| InvalidProxies::Part(part.chars().take(80).collect());
    let network: IpNet = part.parse().map_err(invalid)?;
    if network.trunc() == network { Ok(network) } else { Err(InvalidProxies::Host(network, network.trunc())) }
}

impl TryFrom<String> for Proxies {
    type Error = InvalidProxies;
    fn try_from(text: String) -> Result<Self, InvalidProxies> {
        text.parse()
    }
}

impl From<Proxies> for String {
    fn from(proxies: Proxies) -> Self {
        proxies.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_written() {
        for text in ["off", "192.0.2.7", "10.0.0.0/8,2001:db8::/32,::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Proxies>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.0.0.0/8, ::ffff:192.0.2.7".parse::<Proxies>().unwrap().to_string(),
            "10.0.0.0/8,192.0.2.7"
        );
        for text in ["", "on", "10.0.0.0/33", "10.0.0.0/8,", "example.com", "10.1.2.3/8"] {
            assert!(text.parse::<Proxies>().is_err(), "{text}");
        }
        assert_eq!(vec!["::1"; 65].join(",").parse::<Proxies>(), Err(InvalidProxies::Many));
    }

    #[test]
    fn an_address_is_in_its_network_in_either_way_of_writing() {
        let proxies: Proxies = "10.0.0.0/8,2001:db8::/32".parse().unwrap();
        for (address, contained) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:1::1", true),
            ("::1", false),
        ] {
            assert_eq!(proxies.contain(address.parse().unwrap()), contained, "{address}");
        }
        assert!(!Proxies::default().contain("10.0.0.1".parse().unwrap()));
    }
}
