//! Folders of the tree that are kept between the builds of an app: moved into the tree before its steps, and out of it after them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use berth_source::lay::Owner;
use berth_spec::RelativeDir;
use rustix::fs::CWD;

use crate::remove::remove_all;
use crate::within::Spot;

/// Moves what is kept in `folder` of `dirs` into the tree at `src`, where the tree has nothing in that place.
///
/// # Errors
/// When something cannot be moved.
pub(crate) fn move_in(
    folder: &Path,
    dirs: impl IntoIterator<Item = RelativeDir>,
    src: &Path,
    owner: Option<Owner>,
) -> io::Result<()> {
    for dir in dirs {
        let from = place(folder, &dir);
        let ours = fs::symlink_metadata(&from).is_ok_and(|found| {
            // An app that took another's name and user has nothing of it.
            use std::os::unix::fs::MetadataExt as _;
            found.is_dir() && owner.is_none_or(|owner| owner.uid == found.uid())
        });
        if !ours {
            remove_all(&from)?;
            continue;
        }
        // A tree that has a link in the way keeps nothing.
        let Ok(spot) = Spot::make(src, &dir, owner) else {
            continue;
        };
        match rustix::fs::renameat(CWD, &from, &spot.above, spot.name.as_str()) {
            // The source brings the folder itself.
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOTDIR) => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Moves `dirs` out of the tree at `src` into `folder`. What the build left as something else than a directory is not kept.
///
/// # Errors
/// When something cannot be moved.
pub(crate) fn move_out(
    folder: &Path,
    dirs: impl IntoIterator<Item = RelativeDir>,
    src: &Path,
) -> io::Result<()> {
    for dir in dirs {
        let Ok(spot) = Spot::find(src, &dir).and_then(|spot| spot.open().map(|_there| spot)) else {
            continue;
        };
        let to = place(folder, &dir);
        remove_all(&to)?;
        match spot.move_to(&to) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Where a folder of the tree is kept. The name tells every directory from every other.
pub(crate) fn place(folder: &Path, dir: &RelativeDir) -> PathBuf {
    folder.join(format!("={}", dir.as_str().replace('%', "%25").replace('/', "%2f")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_kept_comes_back_through_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("kept"), dir.path().join("outside"));
        for made in [&folder, &outside] {
            fs::create_dir(made).unwrap();
        }
        let tree = |name: &str| {
            let src = dir.path().join(name);
            fs::create_dir(&src).unwrap();
            src
        };
        let dirs = || [RelativeDir::new(".next/cache").unwrap()];
        let first = tree("first");
        move_in(&folder, dirs(), &first, None).unwrap();
        fs::create_dir_all(first.join(".next/cache/a")).unwrap();
        move_out(&folder, dirs(), &first).unwrap();
        assert!(!first.join(".next/cache").try_exists().unwrap());
        let second = tree("second");
        move_in(&folder, dirs(), &second, None).unwrap();
        assert!(second.join(".next/cache/a").try_exists().unwrap());
        move_out(&folder, dirs(), &second).unwrap();
        let hostile = tree("hostile");
        symlink(&outside, hostile.join(".next")).unwrap();
        move_in(&folder, dirs(), &hostile, None).unwrap();
        fs::create_dir(outside.join("cache")).unwrap();
        move_out(&folder, dirs(), &hostile).unwrap();
        assert!(outside.join("cache").try_exists().unwrap());
        assert!(folder.join("=.next%2fcache/a").try_exists().unwrap());
    }
}
