//! Ports for instances that share the machine's network.
//!
//! A port is leased by binding an abstract Unix socket named after it: machine-wide, without a file that could be left
//! behind, released by the kernel when its last holder (the shim) ends. The range lies outside the ephemeral one.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use berth_clock::{Clock, random_bytes};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use crate::error::{RuntimeError, during};
use crate::instance::PortWish;

/// The ports that instances get.
pub const PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// A port that nobody else will take while this lives.
#[derive(Debug)]
pub(crate) struct PortLease {
    pub(crate) port: u16,
    /// What holds it.
    pub(crate) holder: OwnedFd,
}

/// Leases a port as wished. The search begins at a random place, so that a port just given back is seldom given out at once.
pub(crate) fn lease(wish: &PortWish, clock: &dyn Clock) -> Result<Option<PortLease>, RuntimeError> {
    let nothing = BTreeSet::new();
    let exclude = match wish {
        PortWish::None => return Ok(None),
        PortWish::Exactly(port) => {
            let lease = attempt(*port).map_err(during("leasing a port"))?;
            return lease.map(Some).ok_or(RuntimeError::PortTaken(*port));
        }
        PortWish::Any { exclude } => exclude,
    };
    let exclude = if exclude.is_empty() { &nothing } else { exclude };
    let count = PORTS.end() - PORTS.start() + 1;
    let offset = u16::from_le_bytes(random_bytes(clock)) % count;
    let order = (PORTS.start() + offset..=*PORTS.end()).chain(*PORTS.start()..PORTS.start() + offset);
    for port in order.filter(|port| !exclude.contains(port)) {
        if let Some(lease) = attempt(port).map_err(during("leasing a port"))? {
            return Ok(Some(lease));
        }
    }
    Err(RuntimeError::NoPort)
}

fn attempt(port: u16) -> io::Result<Option<PortLease>> {
    let holder = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let name = SocketAddrUnix::new_abstract_name(format!("berth-port-{port}").as_bytes())?;
    match bind(&holder, &name) {
        Err(rustix::io::Errno::ADDRINUSE) => return Ok(None),
        other => other?,
    }
    Ok(is_free(port)?.then_some(PortLease { port, holder }))
}

/// Whether nothing listens at `port` on any address. Binding the wildcard addresses collides with a listener on any.
fn is_free(port: u16) -> io::Result<bool> {
    let wildcards =
        [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    for address in wildcards {
        match TcpListener::bind(address) {
            // Bound and closed at once. It is never connected to, so that it leaves no trace in the port.
            Ok(listener) => drop(listener),
            // No IPv6 on this machine.
            Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use berth_clock::SystemClock;

    use super::*;

    fn any(exclude: BTreeSet<u16>) -> Result<Option<PortLease>, RuntimeError> {
        lease(&PortWish::Any { exclude }, &SystemClock::new())
    }

    #[test]
    fn a_leased_port_is_not_leased_again_until_it_is_dropped() {
        let first = any(BTreeSet::new()).unwrap().unwrap();
        assert!(PORTS.contains(&first.port));
        let again = PortWish::Exactly(first.port);
        let clock = SystemClock::new();
        assert!(matches!(lease(&again, &clock), Err(RuntimeError::PortTaken(_))));
        let port = first.port;
        drop(first);
        assert_eq!(lease(&again, &clock).unwrap().unwrap().port, port);
    }

    #[test]
    fn a_port_in_use_by_a_foreign_process_is_not_leased() {
        let (lease_of, clock) = (any(BTreeSet::new()).unwrap().unwrap(), SystemClock::new());
        let port = lease_of.port;
        let foreign = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(lease_of);
        assert!(matches!(lease(&PortWish::Exactly(port), &clock), Err(RuntimeError::PortTaken(_))));
        drop(foreign);
        assert!(lease(&PortWish::Exactly(port), &clock).is_ok());
    }

    #[test]
    fn excluded_ports_are_left_alone() {
        let only = any(BTreeSet::new()).unwrap().unwrap().port;
        let exclude: BTreeSet<u16> = PORTS.filter(|port| *port != only).collect();
        match any(exclude.clone()) {
            Ok(lease) => assert_eq!(lease.unwrap().port, only),
            // Another test, or another platform, took the one that was left.
            Err(error) => assert!(matches!(error, RuntimeError::NoPort)),
        }
        assert!(matches!(any(PORTS.collect()), Err(RuntimeError::NoPort)));
    }
}
