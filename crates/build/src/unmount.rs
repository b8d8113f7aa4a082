//! What buildah leaves mounted when it is killed: it stands in the way of whoever removes the folder.

use std::fs;
use std::path::Path;

/// Takes away what is mounted below `folder`. What cannot be is found by whoever removes the folder.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is where it is mounted, with spaces as numbers; none of our folders has one.
    let at = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = at.filter(|at| at.starts_with(folder)).collect();
    below.reverse();
    for at in below {
        if let Err(error) = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH) {
            tracing::debug!(at = %at.display(), %error, "what is mounted below a folder of builds stays");
        }
    }
}
