//! The allow-list: every program that Berth starts.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::ground::Ground;
use crate::image::SealedImage;
use crate::launch::LaunchError;

/// A program that Berth may start. What is not a variant here cannot be started.
#[derive(Debug, Clone)]
pub enum Program {
    /// Berth's own binary again, as another role. Run through `/proc/self/exe`, so that a binary which was
    /// replaced on disk meanwhile is not picked up by half of the roles.
    Own,
    /// A program that Berth carries within itself: the shim.
    Image(SealedImage),
    /// Cargo on a build's ground: it runs the build scripts of the sources it is given.
    Cargo(Ground),
    /// Git on a repository of an app's: it parses what strangers send.
    Git(Ground),
    /// The packet filter of this machine, which reads rules that are ours alone.
    Nft,
    /// Buildah, which builds images. It runs as the platform, and the commands of a tenant's Dockerfile in containers of its own making.
    Buildah,
    /// What sends on whatever an instance sends, as an ordinary user. The shims of instances start it, by where it lies.
    Slirp,
    /// Git of whoever uses the command line, in a working tree of their own.
    OwnGit,
    /// A tool that is installed on this machine, by its absolute path: asked for its version and for nothing else. It is the
    /// administrator's and not a tenant's, so that no ground is needed.
    Tool(PathBuf),
    /// A program of the administrator's that the platform calls at certain moments, by its absolute path. Whoever starts it has made sure that
    /// nobody else could have written it.
    Hook(PathBuf),
    /// A program that a tenant named; made by [`Ground::program`] and [`Ground::shell`] alone.
    Tenant(TenantProgram),
}

/// A program that a tenant named, on its own ground.
#[derive(Debug, Clone)]
pub struct TenantProgram {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) ground: Ground,
}

impl TenantProgram {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Arguments that belong to the program itself, before all others.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Where it runs, and as whom.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }
}

impl Program {
    /// The ground that the program is bound to.
    pub(crate) fn ground(&self) -> Option<&Ground> {
        match self {
            Self::Cargo(ground) | Self::Git(ground) | Self::Tenant(TenantProgram { ground, .. }) => {
                Some(ground)
            }
            Self::Own
            | Self::Image(_)
            | Self::Nft
            | Self::Buildah
            | Self::Slirp
            | Self::OwnGit
            | Self::Tool(_)
            | Self::Hook(_) => None,
        }
    }

    /// Where the program lies.
    ///
    /// # Errors
    /// [`LaunchError::NotFound`] when it is not there.
    pub fn path(&self) -> Result<PathBuf, LaunchError> {
        let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let named = |name: &'static str| {
            find(name, &search).ok_or_else(|| LaunchError::NotFound { program: name.to_owned() })
        };
        match self {
            Self::Own => Ok(PathBuf::from("/proc/self/exe")),
            Self::Image(image) => Ok(image.path()),
            Self::Cargo(_) => named("cargo"),
            Self::Git(_) | Self::OwnGit => named("git"),
            Self::Buildah => named("buildah"),
            // It lies in a folder that an ordinary user's PATH does not have, nor that of every service.
            Self::Nft => named("nft").or_else(|missing| {
                let usual = PathBuf::from("/usr/sbin/nft");
                if is_executable(&usual) { Ok(usual) } else { Err(missing) }
            }),
            Self::Slirp => named("slirp4netns"),
            Self::Tenant(program) => Ok(program.path.clone()),
            Self::Tool(path) | Self::Hook(path) if path.is_absolute() => Ok(path.clone()),
            Self::Tool(path) | Self::Hook(path) => {
                Err(LaunchError::NotFound { program: path.display().to_string() })
            }
        }
    }

    /// Arguments that belong to the program itself.
    pub(crate) fn args(&self) -> &[String] {
        match self {
            Self::Tenant(program) => &program.args,
            Self::Own
            | Self::Image(_)
            | Self::Cargo(_)
            | Self::Git(_)
            | Self::Nft
            | Self::Buildah
            | Self::Slirp
            | Self::OwnGit
            | Self::Tool(_)
            | Self::Hook(_) => &[],
        }
    }

    /// The program as messages name it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Own => "berth".to_owned(),
            Self::Image(_) => "the shim".to_owned(),
            Self::Cargo(_) => "cargo".to_owned(),
            Self::Git(_) | Self::OwnGit => "git".to_owned(),
            Self::Nft => "nft".to_owned(),
            Self::Buildah => "buildah".to_owned(),
            Self::Slirp => "slirp4netns".to_owned(),
            Self::Tenant(TenantProgram { path, .. }) | Self::Tool(path) | Self::Hook(path) => {
                path.display().to_string()
            }
        }
    }
}

/// The first executable file called `name` in the absolute folders of `search`. Relative ones are skipped: they
/// would pick a program out of whatever directory we happen to be in.
pub(crate) fn find(name: &str, search: &OsStr) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    std::env::split_paths(search)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_folders_are_searched() {
        assert_eq!(find("sh", OsStr::new("/nowhere:/bin")), Some("/bin/sh".into()));
        assert_eq!(find("sh", OsStr::new("bin:.:")), None);
        assert_eq!(find("../bin/sh", OsStr::new("/bin")), None);
        assert_eq!(find("", OsStr::new("/bin")), None);
    }
}
