//! The example as somebody's source: a directory of the test's own, deployed and changed and deployed again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::binary::{example, example_binary};
use crate::platform::{Platform, User};

/// A copy of the example `simple-web-app`.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    built: bool,
    changes: u32,
}

impl Source {
    /// What it is deployed as.
    pub const APP: &str = "simple-web-app";

    /// The example as this user can deploy it: an ordinary user may not reach the toolchain.
    #[must_use]
    pub fn for_user(platform: &Platform, user: User) -> Self {
        match user {
            User::Own => Self::to_be_built(platform),
            User::Ordinary => Self::built(platform),
        }
    }

    /// The example as it lies in the repository.
    #[must_use]
    pub fn to_be_built(platform: &Platform) -> Self {
        let source = Self::empty(platform, false);
        for name in ["berth.toml", "Cargo.toml", "Cargo.lock", "src/main.rs"] {
            source.copy(&example(Self::APP).join(name), name);
        }
        source
    }

    /// The executable of the example, and a Procfile.
    #[must_use]
    pub fn built(platform: &Platform) -> Self {
        let source = Self::empty(platform, true);
        source.copy(&example(Self::APP).join("berth.toml"), "berth.toml");
        source.copy(&example_binary(Self::APP), Self::APP);
        fs::write(source.path.join("Procfile"), format!("web: ./{}\n", Self::APP)).expect("our directory");
        source
    }

    fn empty(platform: &Platform, built: bool) -> Self {
        let path = platform.scratch().join("source");
        fs::create_dir(&path).expect("our directory has one source");
        Self { path, built, changes: 0 }
    }

    fn copy(&self, from: &Path, name: &str) {
        let to = self.path.join(name);
        fs::create_dir_all(to.parent().expect("it is below the source")).expect("our directory");
        fs::copy(from, to).expect("the example can be read");
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes something, so that the next release is not the last one again.
    pub fn change(&mut self) {
        self.changes += 1;
        let name = if self.built { "CHANGES" } else { "src/main.rs" };
        let path = self.path.join(name);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{before}// Change {}.\n", self.changes)).expect("our directory");
    }
}
