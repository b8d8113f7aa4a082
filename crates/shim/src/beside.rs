//! The network beside an instance's, in which there is nothing but what edge accepts, and the pair of interfaces that leads there.
//!
//! The shim makes it where it may. The shim of a container may not, and has it made by who starts it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::config::Internal;
use crate::netlink::{End, Mac, Netlink};

/// How many ports there may be. A socket for each is made at the beginning, since nothing gets into that network later.
pub const PORTS: usize = 16;

const HERE: End<'static> = End { name: "berth0", mac: MAC_HERE };
const BEYOND: End<'static> = End { name: "apps", mac: MAC_BEYOND };
/// The second bit says that they are made up. Each is alone with the other.
const MAC_HERE: Mac = [0x02, 0xBE, 0x47, 2, 0, 1];
const MAC_BEYOND: Mac = [0x02, 0xBE, 0x47, 2, 0, 2];

/// Makes the pair of interfaces between the network that `beyond` is about and `home`, which `here` is about: all addresses of `way` are at the
/// far end of it.
///
/// # Errors
/// What the kernel says.
pub fn lay(beyond: &mut Netlink, here: &mut Netlink, home: BorrowedFd<'_>, way: &Internal) -> io::Result<()> {
    beyond.add_pair(&BEYOND, &HERE, home)?;
    let (loopback, link) = (beyond.index("lo")?, beyond.index(BEYOND.name)?);
    beyond.raise(loopback)?;
    beyond.raise(link)?;
    beyond.add_local_route(loopback, (way.network, way.bits))?;
    beyond.add_host_route(link, way.own)?;
    beyond.add_neighbour(link, way.own, MAC_HERE)?;
    let link = here.index(HERE.name)?;
    here.raise(link)?;
    here.add_address(link, way.own)?;
    here.add_neighbour(link, way.gateway, MAC_BEYOND)?;
    here.add_route(link, (way.network, way.bits), way.gateway)
}
