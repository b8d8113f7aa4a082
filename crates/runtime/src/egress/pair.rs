//! The way out as root: a pair of interfaces, one here and one there, and masquerading.
//!
//! Everything that is made for an instance hangs on its network: with the last process and the last socket in it the kernel removes the pair,
//! and with the pair the route here. So nothing has to be cleaned up, whoever was killed when. What stays is the table of the platform in the
//! packet filter, which is the same for all instances and put back by the [`guard`](super::guard) when somebody takes it out.
//!
//! Neither side has an address of a subnet: the instance has one of its own that a route here leads to, and sends everything to a gateway that is
//! nobody. Both sides know the other's hardware address from the beginning.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_clock::{Clock, random_bytes};
use berth_process::Mark;
use berth_shim::netlink::{End, Mac, Netlink};

use super::filter::{self, Filter};
use super::guard::{Guard, Kept};
use super::{LINK_PREFIX, rules};
use crate::layout::short;
use crate::namespace;

const POOL_FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How many addresses instances have.
const POOL_SIZE: u32 = (1 << 16) - 2;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
/// How often another address is tried when one is taken: with half of the range in use a hundred misses in a row are no chance.
const TRIES: usize = 100;
/// The hardware address here, the same for all: each is alone on its pair. The second bit says that it is made up.
const MAC_HERE: Mac = [0x02, 0xBE, 0x47, 0, 0, 1];

/// The platform's part of the pairs.
#[derive(Debug)]
pub(crate) struct Pair {
    kept: Arc<Kept>,
    _guard: Guard,
}

impl Pair {
    /// The way out of the platform's instances, after a try of it that leaves nothing. Blocks.
    ///
    /// # Errors
    /// Why no instance can have a way out here.
    pub(crate) fn open(platform: &str, clock: &Arc<dyn Clock>) -> io::Result<Self> {
        let safe =
            platform.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '_' });
        let table = format!("berth_{}", safe.collect::<String>());
        let kept = Arc::new(Kept::new(Filter::new(table.clone()), Arc::clone(clock)));
        let guard = Guard::start(&kept)?;
        // Another table than the platform's, whose instances may be running.
        let tried = format!("{table}_try");
        filter::load(&rules::table(&tried, &[].into()))?;
        let outcome = kept.look(&tried);
        filter::load(&rules::removal(&tried))?;
        outcome?;
        Ok(Self { kept, _guard: guard })
    }

    /// What in this machine's packet filter drops what instances send, and what helps, when that is so.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.kept.blocked()
    }

    /// Takes the rules away.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.kept.filter.release()
    }

    /// Has the rules be there if an instance of one of these tokens has a way out: whoever made it may have been gone when somebody took them
    /// away. Blocks.
    pub(crate) fn adopt(&self, tokens: impl Iterator<Item = Mark>) -> io::Result<()> {
        let here = Netlink::open()?;
        let mut names = tokens.map(link_of);
        if names.any(|name| here.index(&name).is_ok()) { self.kept.filter.hold() } else { Ok(()) }
    }

    /// A network with a way out for the instance of `token`. It is there as long as somebody holds it or is in it. Blocks.
    pub(crate) fn network(&self, token: Mark, clock: &dyn Clock) -> io::Result<OwnedFd> {
        let (network, there) = namespace::in_new_network(Netlink::open)?;
        self.kept.filter.hold()?;
        lay(&link_of(token), network.as_fd(), there, clock)?;
        Ok(network)
    }

    /// Gives a network that somebody else made, and that has a loopback and nothing else, a way out for the instance of `token`. Blocks.
    pub(crate) fn lead_out(&self, network: BorrowedFd<'_>, token: Mark, clock: &dyn Clock) -> io::Result<()> {
        self.kept.filter.hold()?;
        lay(&link_of(token), network, namespace::netlink_of(network)?, clock)
    }
}

/// What the interface here of the instance of `token` is called.
fn link_of(token: Mark) -> String {
    format!("{LINK_PREFIX}{}", short(token))
}

/// Lays the pair of interfaces between here, where it is called `name`, and `network`.
pub(super) fn lay(
    name: &str,
    network: BorrowedFd<'_>,
    mut there: Netlink,
    clock: &dyn Clock,
) -> io::Result<()> {
    let mut here = Netlink::open()?;
    let [.., third, fourth] = random_bytes::<4>(clock);
    let mac = [0x02, 0xBE, 0x47, 1, third, fourth];
    let (ours, theirs) = (End { name, mac: MAC_HERE }, End { name: "eth0", mac });
    here.add_pair(&ours, &theirs, network)?;
    let index = here.index(name)?;
    here.raise(index)?;
    let inside = there.index(theirs.name)?;
    there.raise(inside)?;
    let address = lease(&mut here, index, clock)?;
    here.add_neighbour(index, address, mac)?;
    there.add_address(inside, address)?;
    there.add_neighbour(inside, GATEWAY, MAC_HERE)?;
    there.add_default_route(inside, GATEWAY)
}

/// An address that no other instance of this machine has, whichever platform it is of: the route to it is there once or not at all.
fn lease(here: &mut Netlink, index: u32, clock: &dyn Clock) -> io::Result<Ipv4Addr> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        let offset = u32::from_le_bytes(random_bytes(clock)) % POOL_SIZE;
        let address = Ipv4Addr::from_bits(POOL_FIRST.to_bits() + offset);
        match here.add_host_route(index, address) {
            Ok(()) => return Ok(address),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
