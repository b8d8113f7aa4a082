//! An instance in a network of its own: its port, and the socket at which edge asks its shim for the way in.

use std::os::unix::net::UnixListener;

use berth_shim::config::Network;

use super::remove_file;
use crate::error::{RuntimeError, during};
use crate::instance::{OWN_PORT, PortWish};
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

/// The socket at which edge asks, if there is anything to be reached.
pub(super) fn dial_listener(
    layout: &Layout,
    record: &StartRecord,
) -> Result<Option<UnixListener>, RuntimeError> {
    if record.network == Network::Host || record.port.is_none() {
        return Ok(None);
    }
    let socket = layout.dial_socket(record.token).map_err(during("naming a socket"))?;
    remove_file(&socket).map_err(during("removing a socket"))?;
    let listener = UnixListener::bind(&socket).map_err(during("binding a dial socket"))?;
    layout.open_to_edge(&socket).map_err(during("opening a dial socket to edge"))?;
    Ok(Some(listener))
}
