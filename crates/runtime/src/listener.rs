//! Where an instance listens, told by the kernel and not by the instance.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use berth_process::procfs;

use crate::instance::Listener;

/// Looks where the processes `pids` listen for TCP, `port` being where they should.
pub(crate) fn look(port: u16, pids: &[u32]) -> io::Result<Listener> {
    let inodes: BTreeSet<u64> = pids.iter().flat_map(|pid| procfs::socket_inodes(*pid)).collect();
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => ports.extend(
                text.lines()
                    .filter_map(listening)
                    .filter(|(_, inode)| inodes.contains(inode))
                    .map(|(port, _)| port),
            ),
            // A machine without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if ports.contains(&port) {
        Listener::Expected
    } else if ports.is_empty() {
        Listener::None
    } else {
        Listener::Elsewhere { ports: ports.into_iter().collect() }
    })
}

/// The port and inode of a line of the kernel's table, if that is a listening socket's.
fn listening(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    // TCP_LISTEN
    (state == "0A").then_some((u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 00";
        assert_eq!(listening(line), Some((8080, 12345)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn our_own_listeners_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = [std::process::id()];
        assert_eq!(look(port, &own).unwrap(), Listener::Expected);
        let Listener::Elsewhere { ports } = look(1, &own).unwrap() else {
            panic!("we listen somewhere");
        };
        assert!(ports.contains(&port));
        assert_eq!(look(port, &[]).unwrap(), Listener::None);
    }
}
