//! Where a tenant's own commands may run: a directory and, as root, a uid that is the tenant's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::program::{self, Program, TenantProgram};

/// The user as whom a child runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups; nothing is inherited.
    pub groups: Vec<u32>,
}

/// Why a place is no ground for a tenant's commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroundError {
    /// Berth runs as root and the commands would, too.
    #[error("a tenant's command needs a user and a group other than root")]
    NeedsUser,
    /// Berth is an ordinary user, who cannot become another.
    #[error("only root can run a tenant's command as another user")]
    CannotSwitch,
    /// The directory is not an absolute path.
    #[error("the directory of a tenant's command must be an absolute path, not {0:?}")]
    Relative(PathBuf),
}

/// A build's directory, or an instance's, with the user of its own: the only place where what a tenant wrote
/// gets executed. A program started on it gets its directory, its user, no way to gain privileges and a
/// process group of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    dir: PathBuf,
    user: Option<User>,
}

impl Ground {
    /// The ground at `dir` of `user`; `None` means that Berth's own user, an ordinary one, is all there is.
    ///
    /// # Errors
    /// [`GroundError`] when the commands would run as root, or as a user that we cannot become.
    pub fn new(dir: &Path, user: Option<User>) -> Result<Self, GroundError> {
        if !dir.is_absolute() {
            return Err(GroundError::Relative(dir.to_owned()));
        }
        let as_root = rustix::process::geteuid().is_root();
        match &user {
            None if as_root => return Err(GroundError::NeedsUser),
            Some(user) if as_root && (user.uid == 0 || user.gid == 0 || user.groups.contains(&0)) => {
                return Err(GroundError::NeedsUser);
            }
            Some(_) if !as_root => return Err(GroundError::CannotSwitch),
            _ => {}
        }
        Ok(Self { dir: dir.to_owned(), user })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The user, `None` for our own.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The program called `name` (looked up in `search`, a `PATH`, unless it holds a slash) on this ground.
    /// `None` when there is none.
    #[must_use]
    pub fn program(&self, name: &str, search: &OsStr) -> Option<Program> {
        let path = if name.contains('/') { self.dir.join(name) } else { program::find(name, search)? };
        Some(Program::Tenant(TenantProgram { path, args: Vec::new(), ground: self.clone() }))
    }

    /// The shell on this ground with the command line `line`: for a command that needs operators.
    #[must_use]
    pub fn shell(&self, line: &str) -> Program {
        let args = vec!["-c".to_owned(), line.to_owned()];
        Program::Tenant(TenantProgram { path: "/bin/sh".into(), args, ground: self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_tenant_runs_as_root() {
        let as_root = rustix::process::geteuid().is_root();
        let user = User { uid: 1234, gid: 1234, groups: vec![] };
        let dir = Path::new("/tmp");
        assert_eq!(Ground::new(dir, None).is_ok(), !as_root);
        assert_eq!(Ground::new(dir, Some(user.clone())).is_ok(), as_root);
        assert!(Ground::new(dir, Some(User { uid: 0, ..user.clone() })).is_err());
        assert!(Ground::new(dir, Some(User { gid: 0, ..user.clone() })).is_err());
        assert!(Ground::new(dir, Some(User { groups: vec![5, 0], ..user })).is_err());
        assert_eq!(Ground::new(Path::new("x"), None), Err(GroundError::Relative("x".into())));
    }
}
