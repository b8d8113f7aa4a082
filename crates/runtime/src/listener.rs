//! Where an instance listens, told by the kernel and not by the instance.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use berth_process::procfs;

use crate::instance::Listener;

/// Looks where the processes `pids` listen for TCP, `port` being where they should. Their network is that of the process `within`.
pub(crate) fn look(port: u16, pids: &[u32], within: u32) -> io::Result<Listener> {
    let inodes: BTreeSet<u64> = pids.iter().flat_map(|pid| procfs::socket_inodes(*pid)).collect();
    let mut found: BTreeSet<(u16, IpAddr)> = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{within}/net/{table}")) {
            Ok(text) => found.extend(
                text.lines()
                    .filter_map(listening)
                    .filter(|(_, inode)| inodes.contains(inode))
                    .map(|(address, _)| (address.port(), address.ip())),
            ),
            // A machine without IPv6, or a process that has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let at_port: Vec<IpAddr> =
        found.iter().filter(|(found, _)| *found == port).map(|(_, address)| *address).collect();
    let ports: BTreeSet<u16> = found.iter().map(|(port, _)| *port).collect();
    Ok(if at_port.iter().any(is_asked) {
        Listener::Expected
    } else if !at_port.is_empty() {
        Listener::Unreachable { addresses: at_port }
    } else if ports.is_empty() {
        Listener::None
    } else {
        Listener::Elsewhere { ports: ports.into_iter().collect() }
    })
}

/// Whether a connection to 127.0.0.1 reaches a listener at `address`. One at `::` takes IPv4 too, unless it says otherwise, which the
/// kernel's table does not tell.
fn is_asked(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address.is_unspecified()
}

/// The address and inode of a line of the kernel's table, if that is a listening socket's.
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let address = SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?);
    // TCP_LISTEN
    (state == "0A").then_some((address, inode.parse().ok()?))
}

/// An address as the kernel writes it: words of 32 bits in hex, the bytes of each in the order of this machine.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words = (0..hex.len()).step_by(8).map(|at| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok());
    let words: Vec<u32> = words.collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 00";
        assert_eq!(listening(line), Some(("127.0.0.1:8080".parse().unwrap(), 12345)));
        let six = line.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(listening(&six), Some(("[::1]:8080".parse().unwrap(), 12345)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn our_own_listeners_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = [std::process::id()];
        assert_eq!(look(port, &own, own[0]).unwrap(), Listener::Expected);
        let Listener::Elsewhere { ports } = look(1, &own, own[0]).unwrap() else {
            panic!("we listen somewhere");
        };
        assert!(ports.contains(&port));
        assert_eq!(look(port, &[], own[0]).unwrap(), Listener::None);
    }

    #[test]
    fn an_address_that_is_not_asked_at_is_told() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let addresses = vec!["127.0.0.2".parse().unwrap()];
        let own = std::process::id();
        let looked = look(listener.local_addr().unwrap().port(), &[own], own);
        assert_eq!(looked.unwrap(), Listener::Unreachable { addresses });
        for (address, asked) in
            [("127.0.0.1", true), ("0.0.0.0", true), ("::", true), ("::ffff:127.0.0.1", true), ("::1", false)]
        {
            assert_eq!(is_asked(&address.parse().unwrap()), asked, "{address}");
        }
    }
}
