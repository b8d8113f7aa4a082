//! The way out of the instance's network where nobody is root: an interface, routes, and a program at the other end.
//!
//! The program forwards whatever it is given, so what must not be reached is refused before it gets there: by routes that lead nowhere, and by the
//! interface itself, which takes nothing that came past the routes. The app may change neither.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use berth_shim::config::StartConfig;
use berth_shim::netlink::{Mac, Netlink, Watch};
use berth_shim::way_out::{LINK, WayOut};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::keeper::Keeper;
use crate::{network, sandbox, system, tap};

/// The interface's hardware address. The second bit says that it is made up.
const MAC: Mac = [0x02, 0xBE, 0x47, 3, 0, 1];
/// The most that it takes at once: nothing here is sent over a cable.
const MTU: u32 = 65_520;
/// The port of resolvers.
const NAMES: u16 = 53;
/// Milliseconds in which the program has to come to its end of the interface.
const UP_WITHIN: u64 = 5_000;

/// The interface, before the program is told of it.
#[derive(Debug)]
pub(crate) struct Laid {
    routes: Netlink,
    links: Watch,
    index: u32,
}

impl Laid {
    /// Makes the interface and the routes of the network that this process is in.
    pub(crate) fn make(way: &WayOut) -> io::Result<Self> {
        tap::make(&tap::open()?, LINK, way.mac)?;
        // What would be sent to all neighbours by itself. Nothing leads out by IPv6.
        system::unheeded(fs::write(format!("/proc/sys/net/ipv6/conf/{LINK}/disable_ipv6"), "1"));
        let (mut routes, links) = (Netlink::open()?, Watch::links()?);
        let index = routes.index(LINK)?;
        routes.set_link(index, MAC, MTU)?;
        routes.raise(index)?;
        routes.add_address(index, way.own)?;
        routes.add_neighbour(index, way.gateway, way.mac)?;
        for network in &way.refused {
            routes.refuse(*network)?;
        }
        for resolver in &way.resolvers {
            routes.except(index, (*resolver, NAMES), way.gateway)?;
        }
        routes.add_default_route(index, way.gateway)?;
        Ok(Self { routes, links, index })
    }

    /// Has `keeper` start the program, now that this process is where it stays, and waits for it. Whether it came in time. When it did not the keeper
    /// goes on trying.
    pub(crate) fn lead_out(self, keeper: &Keeper) -> io::Result<bool> {
        let Self { routes, links, index } = self;
        keeper.begin(routes)?;
        let by = system::steady() + UP_WITHIN;
        loop {
            if links.came_up(index)? {
                return Ok(true);
            }
            let left = by.saturating_sub(system::steady());
            if left == 0 {
                return Ok(false);
            }
            let mut polled = [PollFd::from_borrowed_fd(links.as_fd(), PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: i64::try_from(left / 1_000).unwrap_or(0),
                tv_nsec: i64::try_from(left % 1_000).unwrap_or(0) * 1_000_000,
            };
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Tries the way out of `config`, in a process that does nothing else. Says what is wrong with it.
pub(crate) fn attempt(config: &StartConfig) -> Result<(), String> {
    let way = config.way_out.as_ref().ok_or("there is nothing to be tried")?;
    let during = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let keeper = Keeper::start(&way.program).map_err(during("starting a process"))?;
    sandbox::enter_user_namespace().map_err(during("making a user namespace"))?;
    network::enter(None).map_err(during("making a network"))?;
    tap::open().map(drop).map_err(during(tap::DRIVER))?;
    let laid = Laid::make(way).map_err(during("making an interface"))?;
    match laid.lead_out(&keeper).map_err(during("waiting for slirp4netns"))? {
        true => Ok(()),
        false => Err(format!("slirp4netns did not come up within {} seconds", UP_WITHIN / 1_000)),
    }
}
