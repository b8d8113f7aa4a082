//! A network of a child's own, between fork and exec: a loopback, and no way out.
//!
//! As in [`stage`](crate::stage), only system calls are made after the fork; what they need is prepared before it.
#![expect(unsafe_code, reason = "three system calls have no safe form")]

use std::ffi::CStr;
use std::io;
use std::mem;

use rustix::fs::{Mode, OFlags};

/// What the child needs to leave our network.
#[derive(Debug)]
pub(crate) struct Offline {
    /// The maps of users and groups of a namespace in which an ordinary user is who he was; root needs none.
    maps: Option<[(&'static CStr, String); 3]>,
}

impl Offline {
    pub(crate) fn prepare() -> io::Result<Self> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let same = |id: u32| format!("{id} {id} 1");
        let maps = [
            // Without this an ordinary user may map no group.
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/uid_map", same(uid.as_raw())),
            (c"/proc/self/gid_map", same(gid.as_raw())),
        ];
        Ok(Self { maps: (!uid.is_root()).then_some(maps) })
    }

    pub(crate) fn enter(&self) -> io::Result<()> {
        let flags = libc::CLONE_NEWNET | if self.maps.is_some() { libc::CLONE_NEWUSER } else { 0 };
        // SAFETY: takes no pointer; the child has one thread and shares nothing with us that this would change.
        if unsafe { libc::unshare(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for (path, map) in self.maps.iter().flatten() {
            let file = rustix::fs::open(*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(file, map.as_bytes())?;
        }
        raise_loopback()
    }
}

/// Brings up the loopback of a new network, which comes down.
fn raise_loopback() -> io::Result<()> {
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a request of zeros is a request with an empty name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the request lives through the call, and this one reads it as we filled it.
    let raised = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let outcome = if raised == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: it is ours, and nobody uses it after this. The exec would close it anyway.
    unsafe { libc::close(socket) };
    outcome
}
