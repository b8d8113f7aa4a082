//! The instance's own network.
#![expect(unsafe_code, reason = "the request that brings an interface up has no safe form")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::system;

/// Moves this process into a network of its own, and gives it: into the one behind the descriptor `made`, which has a way out, or into a new one, in which
/// there is a loopback and nothing else. Whoever waits at a Unix socket by its path still finds us.
pub(crate) fn enter(made: Option<RawFd>) -> io::Result<OwnedFd> {
    match made {
        Some(made) => {
            let network = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(system::inherited(made)?.as_fd(), network)?;
        }
        None => unshare()?,
    }
    raise_loopback()?;
    // Nobody else is there whose ports had to be kept from the app: it may listen on 80, as the images of web servers do, and ping.
    // A kernel that does not have these, or a file system that is read-only, leaves them as they are.
    system::unheeded(fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"));
    system::unheeded(fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"));
    Ok(fs::File::open("/proc/self/ns/net")?.into())
}

/// Moves this process into a new network, in which nothing is up.
pub(crate) fn unshare() -> io::Result<()> {
    // SAFETY: the shim has one thread and shares nothing that a network of its own would change.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a request of zeros is a request with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the request lives through the call, and this one reads it as we filled it.
    let raised = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if raised == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
