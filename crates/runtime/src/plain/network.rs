//! An instance in a network of its own: its port, the socket at which edge asks its shim for the way in, and the way to other apps.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use berth_clock::Clock;
use berth_routing::names;
use berth_shim::config::{Internal, Network};
use berth_shim::way_out as config;
use berth_spec::manifest::Egress;

use super::{Inner, Parts, beside, remove_file};
use crate::egress::{Pair, Slirp, WayOut};
use crate::error::{RuntimeError, during};
use crate::instance::{InstanceSpec, OWN_PORT, PortWish};
use crate::layout::Layout;
use crate::record::StartRecord;

/// The port there. Nobody else is in the network, so that any wish comes true.
pub(super) fn port(wish: &PortWish) -> Option<u16> {
    match wish {
        PortWish::None => None,
        PortWish::Any { .. } => Some(OWN_PORT),
        PortWish::Exactly(port) => Some(*port),
    }
}

/// The way to other apps of the project, if it has one. Those ports at which there is an app now are open before it starts, so that what it
/// calls then waits for edge.
pub(super) fn internal(inner: &Inner, spec: &InstanceSpec) -> Option<Internal> {
    if spec.network == Network::Host || spec.egress == Egress::None || !inner.serves_names {
        return None;
    }
    let names = inner.names();
    let more = names.beside(&spec.id.app).into_iter().flat_map(|project| &project.ports);
    let more = more.copied().filter(|port| *port != names::HTTP_PORT);
    Some(beside::way(std::iter::once(names::HTTP_PORT).chain(more).collect()))
}

/// The socket at which edge asks, if there is anything to be reached, or anything that it `reaches`.
pub(super) fn dial_listener(
    layout: &Layout,
    record: &StartRecord,
    reaches: bool,
) -> Result<Option<UnixListener>, RuntimeError> {
    if record.network == Network::Host || (record.port.is_none() && !reaches) {
        return Ok(None);
    }
    let socket = layout.dial_socket(record.token).map_err(during("naming a socket"))?;
    remove_file(&socket).map_err(during("removing a socket"))?;
    let listener = UnixListener::bind(&socket).map_err(during("binding a dial socket"))?;
    layout.open_to_edge(&socket).map_err(during("opening a dial socket to edge"))?;
    Ok(Some(listener))
}

/// Prepares the way out of instances' networks; else says why there is none.
pub(super) fn way_out(parts: &Parts, platform: &str, clock: &Arc<dyn Clock>) -> Result<WayOut, String> {
    if !parts.own_network {
        return Err("instances have no networks of their own".to_owned());
    }
    match (rustix::process::geteuid().is_root(), &parts.containers) {
        (true, _) => Pair::open(platform, clock).map(WayOut::Pair).map_err(|error| error.to_string()),
        (false, None) => Slirp::open(&parts.shim).map(WayOut::Slirp),
        (false, Some(_)) => Err("only root can make one for containers".to_owned()),
    }
}

/// Why an instance that may connect to others gets to nobody, when that is so.
pub(super) fn no_egress(inner: &Inner) -> Option<String> {
    match &inner.way_out {
        Ok(WayOut::Pair(pair)) => pair.blocked(),
        Ok(WayOut::Slirp(_)) => None,
        Err(why) => Some(why.clone()),
    }
}

/// The network of an instance that may connect to others, where root makes it a way out. All other networks the shim makes.
pub(super) fn with_way_out(inner: &Inner, spec: &InstanceSpec) -> Result<Option<OwnedFd>, RuntimeError> {
    match (spec.network, spec.egress, &inner.way_out) {
        (Network::Own, Egress::Internet, Ok(WayOut::Pair(pair))) => {
            let made = pair.network(spec.token, &*inner.clock);
            made.map(Some).map_err(during("making a network with a way out"))
        }
        _ => Ok(None),
    }
}

/// The way out that the shim of an instance makes, where it may connect to others and root makes none.
pub(super) fn by_slirp(inner: &Inner, spec: &InstanceSpec) -> Option<config::WayOut> {
    match (spec.network, spec.egress, &inner.way_out) {
        (Network::Own, Egress::Internet, Ok(WayOut::Slirp(slirp))) => Some(slirp.config()),
        _ => None,
    }
}
