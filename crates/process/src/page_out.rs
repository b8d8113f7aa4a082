//! Moving the memory of processes that stand still to swap, so that what is kept for later costs nothing now.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::child::open_pidfd;

/// How many ranges one call takes, as the kernel limits it.
const RANGES_AT_ONCE: usize = 1_024;

/// Whether the machine has swap that memory could go to.
#[must_use]
pub fn swap_is_there() -> bool {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines().count() > 1
}

/// Asks the kernel to move the private memory of a process out (MADV_PAGEOUT). Gives how many bytes of address space it was asked for. What has no
/// place in swap stays where it is.
///
/// # Errors
/// When the process is not there, or the system refuses.
pub fn page_out(pid: u32) -> io::Result<u64> {
    let pidfd = open_pidfd(pid)?.ok_or(rustix::io::Errno::SRCH)?;
    let ranges = private_ranges(&fs::read_to_string(format!("/proc/{pid}/maps"))?);
    let mut asked = 0;
    for chunk in ranges.chunks(RANGES_AT_ONCE) {
        asked += advise(&pidfd, chunk)?;
    }
    Ok(asked)
}

/// The ranges of writable private memory in the text of `/proc/<pid>/maps`. Shared files are in memory once for all.
fn private_ranges(maps: &str) -> Vec<(usize, usize)> {
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (first, last) = words.next()?.split_once('-')?;
        let (first, last) = (usize::from_str_radix(first, 16).ok()?, usize::from_str_radix(last, 16).ok()?);
        let rights = words.next()?;
        let special = line.ends_with("[vvar]") || line.ends_with("[vdso]") || line.ends_with("[vsyscall]");
        (rights.contains('w') && rights.ends_with('p') && !special)
            .then_some((first, last.checked_sub(first)?))
    };
    maps.lines().filter_map(range).collect()
}

#[expect(unsafe_code, reason = "process_madvise has no safe form")]
fn advise(pidfd: &OwnedFd, ranges: &[(usize, usize)]) -> io::Result<u64> {
    let vectors: Vec<libc::iovec> = ranges
        .iter()
        .map(|(at, length)| libc::iovec { iov_base: std::ptr::without_provenance_mut(*at), iov_len: *length })
        .collect();
    // SAFETY: the vectors live through the call. They name another process's memory, whose contents this advice does not change.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            pidfd.as_raw_fd(),
            vectors.as_ptr(),
            vectors.len(),
            libc::MADV_PAGEOUT,
            0,
        )
    };
    u64::try_from(done).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_writable_memory_alone_is_moved() {
        let maps = "\
400000-401000 r-xp 00000000 fe:00 1 /bin/x
601000-603000 rw-p 00001000 fe:00 1 /bin/x
7f0000000000-7f0000010000 rw-s 00000000 00:01 2 /dev/zero
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
7ffd00100000-7ffd00102000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(private_ranges(maps), [(0x60_1000, 0x2000), (0x7ffd_0000_0000, 0x2_1000)]);
        assert_eq!(private_ranges("x\n1-0 rw-p\n"), []);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(page_out(u32::MAX / 2).is_err());
    }
}
