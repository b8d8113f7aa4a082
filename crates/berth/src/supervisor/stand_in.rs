//! Who takes the home over: guards of upgrades whose supervisor is gone, and what they have become, give way.
//!
//! A supervisor that is killed during an upgrade is followed by the guard of that upgrade ([`super::upgrade`]), and perhaps by whoever watched
//! it too: a service manager that starts the platform again, a person. The platform is to be theirs, or the manager would see it refuse
//! to start while it runs. So the guard, as a supervisor, is one that stands in: a start that meets it ends it. Edge and the apps go on serving as after
//! the end of any supervisor.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::UpError;
use super::lock::{HomeLock, LockError};
use super::orphans::Orphan;

/// What a supervisor is started with that stands in.
pub(super) const OPTION: &str = "--stand-in";
/// How often a home is asked for that may be free in a moment, and the pause between.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// A process that holds a place for a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A guard whose supervisor is not this process.
    Guard,
    StandIn,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "guard",
            Self::StandIn => "stand-in",
        })
    }
}

/// Takes the lock of the home at `path`, and ends what holds the place of a supervisor there unless it is a living one's. `stands_in` is
/// whether this one does so itself: it gives way and takes nothing from anybody.
///
/// # Errors
/// [`UpError::Lock`] when a platform runs there, [`UpError::Immortal`] when one that stands in does not end.
pub(super) fn take_home(path: &Path, stands_in: bool) -> Result<HomeLock, UpError> {
    let mut attempts = 0;
    let lock = loop {
        attempts += 1;
        match HomeLock::take(path, stands_in) {
            Err(LockError::Held { holder, .. }) if attempts < ATTEMPTS && holder.gives_way() => {
                if !stands_in {
                    end_all(path, Kind::StandIn)?;
                }
                wait_a_moment();
            }
            taken => break taken?,
        }
    };
    // With the lock nobody else is a living supervisor of this home. They would still listen where the API is to.
    end_all(path, Kind::Guard)?;
    end_all(path, Kind::StandIn)?;
    Ok(lock)
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when a lock is let go of that somebody else has"
)]
fn wait_a_moment() {
    std::thread::sleep(PAUSE);
}

fn end_all(home: &Path, kind: Kind) -> Result<(), UpError> {
    let own = std::process::id().to_string();
    let find = || -> io::Result<Vec<Orphan<Kind>>> {
        let user = rustix::process::geteuid().as_raw();
        Orphan::find(&[user], &|words| kind_of(words, home, &own).filter(|found| *found == kind))
    };
    for orphan in find().map_err(UpError::system("look for guards of earlier upgrades"))? {
        // The same path is another home to a process that sees other file systems, as one in a container does.
        if is_same(&Path::new("/proc").join(orphan.pid.to_string()).join("root"), home) {
            tracing::info!(pid = orphan.pid, "ending a {kind} of a supervisor that is gone");
            orphan.kill()?;
        }
    }
    Ok(())
}

/// Whether `home` below `root` is `home`.
fn is_same(root: &Path, home: &Path) -> bool {
    let theirs = root.join(home.strip_prefix("/").unwrap_or(home));
    let place = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    place(&theirs).is_some_and(|theirs| Some(theirs) == place(home))
}

/// What the process with these arguments is to the home, other than the guard of `own`.
fn kind_of(words: &[&[u8]], home: &Path, own: &str) -> Option<Kind> {
    let of = |at: &&[u8]| *at == home.as_os_str().as_bytes();
    match words {
        [_, b"__guard", b"--supervisor", whose, b"--home", at, ..] if of(at) => {
            (*whose != own.as_bytes()).then_some(Kind::Guard)
        }
        [_, b"__supervisor", b"--home", at, rest @ ..] if of(at) => {
            rest.contains(&OPTION.as_bytes()).then_some(Kind::StandIn)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_elsewhere_is_another_home() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = one.path().join("home");
        fs::create_dir(&home).unwrap();
        assert!(is_same(Path::new("/proc/self/root"), &home));
        assert!(!is_same(other.path(), &home), "nothing there");
        fs::create_dir_all(other.path().join(home.strip_prefix("/").unwrap())).unwrap();
        assert!(!is_same(other.path(), &home));
    }

    #[test]
    fn guards_and_stand_ins_are_known_by_their_arguments() {
        let kind = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            kind_of(&words, Path::new("/h"), "12")
        };
        assert_eq!(kind("berth __guard --supervisor 11 --home /h --json"), Some(Kind::Guard));
        assert_eq!(kind("berth __guard --supervisor 12 --home /h"), None, "our own");
        assert_eq!(kind("berth __guard --supervisor 11 --home /other"), None);
        assert_eq!(kind("berth __supervisor --home /h --starter 3 --stand-in"), Some(Kind::StandIn));
        assert_eq!(kind("berth __supervisor --home /h --starter 3"), None);
        assert_eq!(kind("berth --home /h up"), None);
    }
}
