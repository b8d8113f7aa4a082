//! Where things of instances lie.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_process::{Mark, User};
use berth_spec::InstanceId;

/// A Unix socket's path ends before this many bytes (`sun_path` with its final NUL).
const SOCKET_PATH_MAX: usize = 107;

/// The folders of a platform that the runtime uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `instances/` in the home: a folder per instance.
    pub instances: PathBuf,
    /// `logs/` in the home: a folder of log segments per instance.
    pub logs: PathBuf,
    /// The short folder of sockets; those of the shims lie in `i/` and `d/` below it.
    pub run: PathBuf,
    /// The user and group of edge, who alone may ask for sockets of an instance's network; `None` when it runs as we do.
    pub edge: Option<u32>,
    /// The platform's name, part of the name of its control groups.
    pub platform: String,
}

impl Layout {
    /// The folder of an instance.
    pub(crate) fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances.join(id.to_string())
    }

    /// The folder that is an instance's `HOME` and `TMPDIR`.
    pub(crate) fn tmp(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("tmp")
    }

    /// The empty folder over which an instance's root is mounted, in its own namespace alone.
    pub(crate) fn root(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("root")
    }

    /// Its `/etc/hosts`, where that names apps of its project.
    pub(crate) fn hosts(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("hosts")
    }

    pub(crate) fn log(&self, id: &InstanceId) -> PathBuf {
        self.logs.join(id.to_string())
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.run.join("i")
    }

    /// The folders that have a socket for each instance.
    pub(crate) fn socket_folders(&self) -> [PathBuf; 2] {
        [self.sockets(), dial_folder(&self.run)]
    }

    /// The socket of the shim of `token`; an error when its path is too long for a socket.
    pub(crate) fn socket(&self, token: Mark) -> io::Result<PathBuf> {
        Self::socket_in(&self.sockets(), token)
    }

    /// The socket at which edge asks the shim of `token` for sockets; an error when its path is too long for a socket.
    pub(crate) fn dial_socket(&self, token: Mark) -> io::Result<PathBuf> {
        Self::socket_in(&dial_folder(&self.run), token)
    }

    /// The socket at which the shim of `token` is handed what it needs, where it is no child of ours.
    pub(crate) fn door(&self, token: Mark) -> io::Result<PathBuf> {
        let path = self.sockets().join(format!("{}.door", short(token)));
        Self::fits(&path).map(|()| path)
    }

    /// The shim where containers find it.
    pub(crate) fn shim(&self) -> PathBuf {
        self.instances.join(".shim")
    }

    /// The files that are made for an instance in a container.
    pub(crate) fn files(&self, id: &InstanceId) -> PathBuf {
        self.instance(id).join("files")
    }

    fn socket_in(folder: &Path, token: Mark) -> io::Result<PathBuf> {
        let path = folder.join(format!("{}.sock", short(token)));
        Self::fits(&path).map(|()| path)
    }

    fn fits(path: &Path) -> io::Result<()> {
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket"));
        }
        Ok(())
    }

    /// Makes the folders that all instances share.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        make(&self.instances, passage())?;
        make(&self.logs, 0o700)?;
        make(&self.sockets(), 0o700)?;
        let dial = dial_folder(&self.run);
        make(&dial, 0o700)?;
        match self.edge {
            // By its group edge passes and looks, and nobody else: an app has another user and another group.
            Some(edge) => {
                std::os::unix::fs::chown(&dial, None, Some(edge))?;
                fs::set_permissions(&dial, Permissions::from_mode(0o750))
            }
            None => Ok(()),
        }
    }

    /// Lets edge connect to a dial socket that was just bound at `path`.
    pub(crate) fn open_to_edge(&self, path: &Path) -> io::Result<()> {
        match self.edge {
            Some(edge) => {
                std::os::unix::fs::chown(path, None, Some(edge))?;
                fs::set_permissions(path, Permissions::from_mode(0o660))
            }
            None => fs::set_permissions(path, Permissions::from_mode(0o600)),
        }
    }

    /// Makes the folders of one instance.
    pub(crate) fn prepare_instance(&self, id: &InstanceId, user: Option<&User>) -> io::Result<()> {
        make_below(&self.instances, &self.instance(id), passage())?;
        make_below(&self.logs, &self.log(id), 0o700)?;
        make(&self.root(id), 0o700)?;
        let tmp = self.tmp(id);
        make(&tmp, 0o700)?;
        match user {
            Some(user) => std::os::unix::fs::chown(&tmp, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }

    /// Removes the folder of one instance, and the folders above it that are empty then.
    pub(crate) fn remove_instance(&self, id: &InstanceId) -> io::Result<()> {
        remove_below(&self.instances, &self.instance(id))
    }

    /// Removes the log of one instance, and the folders above it that are empty then.
    pub(crate) fn remove_log(&self, id: &InstanceId) -> io::Result<()> {
        remove_below(&self.logs, &self.log(id))
    }
}

/// The folder of the sockets at which edge asks for sockets of instances' networks, below the short folder of sockets.
#[must_use]
pub fn dial_folder(run: &Path) -> PathBuf {
    run.join("d")
}

/// The first 12 digits of a token: what names its sockets and its control group.
pub(crate) fn short(token: Mark) -> String {
    let mut text = token.to_string();
    text.truncate(12);
    text
}

/// The mode of a folder through which an app reaches its own: as root an app has a uid of its own, and must be able to
/// pass but not to look around. The home itself keeps everybody else out.
fn passage() -> u32 {
    if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 }
}

fn make(dir: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    // Whatever umask we run with.
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

fn make_below(top: &Path, dir: &Path, mode: u32) -> io::Result<()> {
    let mut steps: Vec<&Path> = dir.ancestors().take_while(|step| *step != top).collect();
    steps.reverse();
    steps.into_iter().try_for_each(|step| make(step, mode))
}

fn remove_below(top: &Path, dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for above in dir.ancestors().skip(1).take_while(|above| *above != top) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}
