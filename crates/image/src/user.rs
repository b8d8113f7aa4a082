//! Who an image's processes run as: names are looked up in the image itself.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::error::{ImageError, failed, shown};

/// The longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// The longest line of one that counts, in bytes.
const LINE_MAX: usize = 64 << 10;
/// An id is below this: as many as a user namespace maps.
const IDS: u32 = 65_536;

/// Who a process runs as, in the image's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageUser {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups, those that list the user.
    pub groups: Vec<u32>,
    /// The home directory, where `/etc/passwd` has one.
    pub home: Option<String>,
}

/// Looks up `user` of an image's configuration, `user[:group]` with names or numbers, in the image's layers, the topmost first. Nothing is
/// root. A number needs no entry, and neither does root by its name; another name does.
///
/// # Errors
/// When a name is not there, a number is too large, or a file cannot be read: `image_invalid`.
pub fn resolve(layers: &[PathBuf], user: &str) -> Result<ImageUser, ImageError> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|it| !it.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = if user == "root" { Some(0) } else { number(user)? };
    // Of one who is known by his number they tell only more: images of Nix's have links there, which lead to other layers.
    let needs_group = group.is_some_and(|group| !group.bytes().all(|it| it.is_ascii_digit()));
    let told = |name: &str, needed: bool| match lines(layers, name) {
        Err(_unreadable) if !needed => Ok(Vec::new()),
        lines => lines,
    };
    let passwd = told("passwd", number.is_none())?;
    // name:password:uid:gid:comment:home:shell
    let entry = passwd.iter().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&user)
            || number.is_some_and(|it| fields.get(2).and_then(|it| it.parse().ok()) == Some(it))
    });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)).copied();
    let missing = |what: &str, name: &str| {
        ImageError::invalid(format!(
            "it runs as the {what} {:?}, which its /etc has no entry for",
            shown(name.as_bytes())
        ))
    };
    let uid = match number {
        Some(uid) => uid,
        None => id(field(2)).ok_or_else(|| missing("user", user))?,
    };
    let groups = told("group", needs_group)?;
    // name:password:gid:members
    let groups: Vec<Vec<&str>> = groups.iter().map(|line| line.split(':').collect()).collect();
    let gid_of = |fields: &Vec<&str>| id(fields.get(2).copied());
    let gid = match group {
        None => id(field(3)).unwrap_or(0),
        Some(group) => match self::number(group)? {
            Some(gid) => gid,
            None => groups
                .iter()
                .find(|fields| fields.first() == Some(&group))
                .and_then(gid_of)
                .ok_or_else(|| missing("group", group))?,
        },
    };
    let mut further = Vec::new();
    // As in Docker, a group that was asked for stands alone.
    if let (None, Some(name)) = (group, field(0)) {
        let lists = |fields: &&Vec<&str>| {
            fields.get(3).is_some_and(|members| members.split(',').any(|it| it == name))
        };
        further.extend(groups.iter().filter(lists).filter_map(gid_of));
        further.sort_unstable();
        further.dedup();
    }
    let home = field(5).filter(|home| home.starts_with('/')).map(str::to_owned);
    Ok(ImageUser { uid, gid, groups: further, home })
}

/// A number as such; a name is none.
fn number(text: &str) -> Result<Option<u32>, ImageError> {
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return Ok(None);
    }
    let fits = text.parse().ok().filter(|id| *id < IDS);
    fits.map(Some).ok_or_else(|| {
        ImageError::invalid(format!("it runs as {:?}, and ids end at 65535", shown(text.as_bytes())))
    })
}

fn id(field: Option<&str>) -> Option<u32> {
    field?.parse().ok().filter(|id| *id < IDS)
}

/// The lines of `/etc/NAME` as the overlay of `layers` shows it. None where there is no such file.
fn lines(layers: &[PathBuf], name: &str) -> Result<Vec<String>, ImageError> {
    for layer in layers {
        let root = beneath::open_root(layer).map_err(failed(layer, "opened"))?;
        let etc = match beneath::open(&root, b"etc", OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(etc) => etc,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(unreadable(name, error)),
        };
        let stat = rustix::fs::fstat(&etc).map_err(|error| unreadable(name, error))?;
        if beneath::is_whiteout(&stat) {
            return Ok(Vec::new());
        }
        if beneath::kind(&stat) != FileType::Directory {
            return Err(unreadable(name, Errno::NOTDIR));
        }
        match beneath::look(&etc, name.as_bytes()).map_err(|error| unreadable(name, error))? {
            Some(stat) if beneath::is_whiteout(&stat) => return Ok(Vec::new()),
            Some(stat) if beneath::kind(&stat) == FileType::RegularFile => {
                let file = beneath::open(&etc, name.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK);
                return read(file.map_err(|error| unreadable(name, error))?.into())
                    .map_err(|error| unreadable(name, error));
            }
            Some(_) => return Err(unreadable(name, Errno::LOOP)),
            None if is_opaque(&root) => return Ok(Vec::new()),
            None => {}
        }
    }
    Ok(Vec::new())
}

fn read(file: std::fs::File) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in BufReader::new(file.take(FILE_MAX)).split(b'\n') {
        let line = line?;
        // One that is not UTF-8 is nobody whom a configuration, which is UTF-8, could name.
        if let Ok(line) = String::from_utf8(line)
            && line.len() <= LINE_MAX
        {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Whether `/etc` of a layer hides what is below it.
fn is_opaque(root: &std::os::fd::OwnedFd) -> bool {
    let Ok(etc) = beneath::open(root, b"etc", OFlags::RDONLY | OFlags::DIRECTORY) else { return false };
    ["trusted.overlay.opaque", "user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::fgetxattr(&etc, name, &mut value) == Ok(1) && value == *b"y"
    })
}

fn unreadable(name: &str, error: impl Into<std::io::Error>) -> ImageError {
    ImageError::invalid(format!("its /etc/{name} cannot be read: {}", error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_and_numbers_are_looked_up_in_the_topmost_layer_that_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let [low, high, gone] = ["low", "high", "gone"].map(|it| dir.path().join(it));
        for layer in [&low, &high, &gone] {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(
            low.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001:App:/home/app:\nbig:x:99999:0::/:\n",
        )
        .unwrap();
        fs::write(low.join("etc/group"), "root:x:0:\nweb:x:33:app,x\nlog:x:4:x,app\nno:x:5:apple\n").unwrap();
        let of = |user: &str| resolve(&[high.clone(), low.clone()], user);
        let app = ImageUser { uid: 1000, gid: 1001, groups: vec![4, 33], home: Some("/home/app".into()) };
        assert_eq!(of("app").unwrap(), app);
        assert_eq!(of("1000").unwrap(), app);
        assert_eq!(of("app:web").unwrap(), ImageUser { gid: 33, groups: vec![], ..app });
        assert_eq!(of("7:8").unwrap(), ImageUser { uid: 7, gid: 8, ..ImageUser::default() });
        assert_eq!(of("").unwrap(), ImageUser { home: Some("/root".into()), ..ImageUser::default() });
        for bad in ["nobody", "big", "app:none", "65536", "4294967296", "app:99999"] {
            assert_eq!(of(bad).unwrap_err().code(), "image_invalid", "{bad}");
        }
        fs::write(high.join("etc/passwd"), "other:x:5:5::/:\n").unwrap();
        assert!(of("app").is_err());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            gone.join("etc/passwd"),
            FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        assert!(resolve(&[gone, low], "app").is_err());
    }

    #[test]
    fn a_link_in_the_place_of_the_file_reads_nothing_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("etc")).unwrap();
        for name in ["passwd", "group"] {
            symlink(format!("/etc/{name}"), layer.join("etc").join(name)).unwrap();
        }
        let of = |user: &str| resolve(std::slice::from_ref(&layer), user);
        for name in ["daemon", "7:daemon", "root:daemon"] {
            assert!(of(name).is_err(), "{name}");
        }
        // Whoever is known by his number needs no file, and nothing of the machine's tells more of him.
        assert_eq!(of("root").unwrap(), ImageUser::default());
        assert_eq!(of("").unwrap(), ImageUser::default());
        assert_eq!(of("7:8").unwrap(), ImageUser { uid: 7, gid: 8, ..ImageUser::default() });
        fs::remove_dir_all(layer.join("etc")).unwrap();
        symlink("/etc", layer.join("etc")).unwrap();
        assert!(resolve(&[layer], "daemon").is_err());
    }
}
