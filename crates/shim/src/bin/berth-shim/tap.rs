//! The interface of a way out, whose other end is a program's.
#![expect(unsafe_code, reason = "the requests to the driver have no safe form")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use berth_shim::netlink::Mac;

/// Where the driver is asked.
pub(crate) const DRIVER: &str = "/dev/net/tun";

/// A filter as the driver takes it, with room for one address.
#[repr(C)]
struct Filter {
    flags: u16,
    count: u16,
    address: Mac,
}

/// Opens the driver, in the network in which the interface is to be.
pub(crate) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DRIVER)
}

/// Makes the interface `name` of this network, which stays when nobody is at its other end, and comes up when somebody is.
///
/// What goes to `mac` comes out there, and nothing else does. So nobody is asked for hardware addresses, nothing goes to all or to many, and an app
/// that has its packets leave by the interface whatever the routes say, as the kernel lets anybody do, finds nobody who takes them.
pub(crate) fn make(driver: &File, name: &str, mac: Mac) -> io::Result<()> {
    // SAFETY: a request of zeros is a request with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less than there is room for, so that the name ends.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let kind = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(kind).unwrap_or_default();
    // SAFETY: the request lives through the call, and this one reads and writes a name and flags.
    check(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let filter = Filter { flags: 0, count: 1, address: mac };
    // SAFETY: the filter lives through the call, has the driver's layout and as many addresses as it says.
    check(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETTXFILTER, &raw const filter) })?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETPERSIST, 1) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
