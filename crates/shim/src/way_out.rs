//! The way out of an instance's network where nobody is root: what its shim is told of it.

use std::net::Ipv4Addr;

use crate::tlv::{self, Fields, Malformed, put};

/// What the interface is called, as in every container.
pub const LINK: &str = "eth0";

/// An interface whose other end is a program of the machine's user. What goes into it the program sends on by sockets of the machine's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    /// The program and its arguments, but for those that say which namespaces it is about.
    pub program: Vec<String>,
    /// The instance's address.
    pub own: Ipv4Addr,
    /// Where everything is sent. Nobody is there: it stands for the program.
    pub gateway: Ipv4Addr,
    /// The hardware address that the program has.
    pub mac: [u8; 6],
    /// Addresses of resolvers, which are reached on the port for names though what they lie in is refused.
    pub resolvers: Vec<Ipv4Addr>,
    /// The networks that are refused, by their addresses and how many bits of these count. Those of the machine itself come to them.
    pub refused: Vec<(Ipv4Addr, u8)>,
}

impl WayOut {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.program.iter().for_each(|word| put(&mut out, 1, word.as_bytes()));
        put(&mut out, 2, &self.own.octets());
        put(&mut out, 3, &self.gateway.octets());
        put(&mut out, 4, &self.mac);
        self.resolvers.iter().for_each(|resolver| put(&mut out, 5, &resolver.octets()));
        for (network, bits) in &self.refused {
            put(&mut out, 6, &[&network.octets()[..], &[*bits]].concat());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut program, mut resolvers, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let (mut own, mut gateway, mut mac) = (None, None, None);
        for field in Fields::of(bytes) {
            let (tag, field) = field?;
            match tag {
                1 => program.push(tlv::text(field)?),
                2 => own = Some(address(field)?),
                3 => gateway = Some(address(field)?),
                4 => mac = field.try_into().ok(),
                5 => resolvers.push(address(field)?),
                6 => refused.push(network(field)?),
                _ => return Err(Malformed("a field of the way out is not known")),
            }
        }
        let (Some(own), Some(gateway), Some(mac)) = (own, gateway, mac) else {
            return Err(Malformed("the way out lacks an address"));
        };
        if program.is_empty() || program.iter().any(|word| word.contains('\0')) {
            return Err(Malformed("the way out has no program"));
        }
        Ok(Self { program, own, gateway, mac, resolvers, refused })
    }
}

fn address(bytes: &[u8]) -> Result<Ipv4Addr, Malformed> {
    let octets = <[u8; 4]>::try_from(bytes).ok();
    octets.map(Ipv4Addr::from).ok_or(Malformed("an address is not four bytes long"))
}

fn network(bytes: &[u8]) -> Result<(Ipv4Addr, u8), Malformed> {
    match bytes.split_last() {
        Some((bits, network)) if *bits <= 32 => Ok((address(network)?, *bits)),
        _ => Err(Malformed("a network makes no sense")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_comes_back_from_its_bytes() {
        let full = WayOut {
            program: vec!["/usr/bin/program".to_owned(), "--option".to_owned()],
            own: Ipv4Addr::new(198, 18, 0, 1),
            gateway: Ipv4Addr::new(198, 19, 255, 254),
            mac: [2, 1, 2, 3, 4, 5],
            resolvers: vec![Ipv4Addr::new(192, 0, 2, 53)],
            refused: vec![(Ipv4Addr::LOCALHOST, 8), (Ipv4Addr::BROADCAST, 32)],
        };
        assert_eq!(WayOut::decode(&full.encode()).unwrap(), full);
        let small = WayOut { resolvers: Vec::new(), refused: Vec::new(), ..full.clone() };
        assert_eq!(WayOut::decode(&small.encode()).unwrap(), small);
        assert!(WayOut::decode(&WayOut { program: Vec::new(), ..full.clone() }.encode()).is_err());
        let wide = WayOut { refused: vec![(Ipv4Addr::LOCALHOST, 33)], ..full };
        assert!(WayOut::decode(&wide.encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(WayOut::decode(&bytes));
        }
    }
}
