//! How far inside an address is: a registry must not send us further in than it stands itself.
//!
//! A redirect, or the address of a token service, is the registry's word. Control stands where much is open that the registry cannot
//! reach: databases on loopback, services of the internal network, the cloud's metadata with the machine's credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far inside an address is, the outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Anybody may have it.
    Public,
    /// Of an internal network.
    Private,
    /// This machine.
    Loopback,
    /// Of the link, where clouds have their metadata, or none that a service has: never gone to.
    Never,
}

impl Reach {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            // 192.0.0.192 is Oracle's metadata, 168.63.129.16 Azure's, 100.100.100.200 Alibaba's.
            [0, ..]
            | [169, 254, ..]
            | [192, 0, 0, _]
            | [168, 63, 129, 16]
            | [100, 100, 100, 200]
            | [224..=255, ..] => Self::Never,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
                Self::Private
            }
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address.is_loopback() {
            return Self::Loopback;
        }
        let segments = address.segments();
        let v4 = |high: u16, low: u16| {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match segments {
            // ::ffff:a.b.c.d, and ::a.b.c.d, which is old; :: itself is one.
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] => v4(high, low),
            // NAT64 and 6to4 lead to the address within.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
            // Amazon's metadata.
            [0xfd00, 0xec2, ..] => Self::Never,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xfe80..=0xfebf | 0xff00..=0xffff, ..] => Self::Never,
            [0x64, 0xff9b, 1, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            _ => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_inner_address_is_known() {
        for (address, reach) in [
            ("1.1.1.1", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("10.0.0.1", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("100.64.0.1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("127.8.8.8", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("64:ff9b::7f00:1", Reach::Loopback),
            ("2002:7f00:1::", Reach::Loopback),
            ("::ffff:10.1.1.1", Reach::Private),
            ("169.254.169.254", Reach::Never),
            ("::ffff:169.254.169.254", Reach::Never),
            ("fd00:ec2::254", Reach::Never),
            ("fe80::1", Reach::Never),
            ("0.0.0.0", Reach::Never),
            ("::", Reach::Never),
            ("255.255.255.255", Reach::Never),
            ("224.0.0.1", Reach::Never),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }
}
