//! Sizes are kept, on a file system that has quotas of projects: `cargo xtask guest` boots a machine with one.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

use berth_spec::SnapshotName;
use rustix::fs::CWD;

use super::*;

const MIB: u64 = 1 << 20;

fn shop() -> AppId {
    "default/default/shop".parse().unwrap()
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// A store where sizes are kept; nothing where none is to be had.
fn keeping() -> Option<(tempfile::TempDir, Store)> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("volumes"));
    match store.keeps_sizes() {
        Ok(()) => Some((dir, store)),
        Err(NotKept { why, next }) => {
            assert!(!why.is_empty() && !next.is_empty());
            println!("!! NOT TESTED: {why}; {next}");
            None
        }
    }
}

fn project_of(path: &Path) -> u32 {
    let file = File::open(path).unwrap();
    kernel::attributes(&file).unwrap().project
}

fn account_of(store: &Store, project: u32) -> kernel::Account {
    kernel::account(open_dir(store.top()).unwrap(), project).unwrap()
}

/// Whether nothing is counted for the project any more. XFS takes what was removed off its account a little later, in a thread of its own.
fn is_free(store: &Store, project: u32) -> bool {
    (0..1_000_000).any(|_| {
        std::thread::yield_now();
        account_of(store, project) == kernel::Account::default()
    })
}

#[test]
fn a_number_is_made_of_the_inode_and_is_never_a_small_one() {
    for inode in [0, 1, 2, COUNT - 1, COUNT, COUNT + 1, u64::MAX] {
        let all: Vec<u32> = candidates(inode).collect();
        assert_eq!(all.len() as u64, TRIES);
        assert!(all.iter().all(|number| (FIRST..=u32::MAX / 2).contains(number)), "{inode}: {all:?}");
        assert_eq!(u64::from(all[0] - FIRST), inode % COUNT);
    }
    assert!(candidates(COUNT - 1).nth(1) == Some(FIRST), "it begins anew behind the last");
}

#[test]
fn room_for_files_grows_with_the_size() {
    assert_eq!(entries_of(MIB), 1_024);
    assert_eq!(entries_of(10 << 30), 655_360, "as many as mke2fs gives 10 GiB");
    assert_eq!(size_kept(1_500_000), 1_464 * 1_024);
}

#[test]
fn what_is_missing_is_said_for_each_kind_of_file_system() {
    let mut said = std::collections::BTreeSet::new();
    for (kind, keeping, word) in [
        (Kind::Ext4, Keeping::Nothing, "tune2fs"),
        (Kind::Ext4, Keeping::Counts, "prjquota"),
        (Kind::Ext4, Keeping::Unable, "CONFIG_QUOTA"),
        (Kind::Xfs, Keeping::Nothing, "pquota"),
        (Kind::Btrfs, Keeping::Nothing, "XFS"),
        (Kind::Other, Keeping::Nothing, "ext4"),
    ] {
        let NotKept { why, next } = advice(kind, keeping);
        assert!(next.contains(word) && said.insert(why), "{kind:?}: {next}");
    }
}

#[test]
fn where_nothing_is_counted_nothing_is_kept_and_nothing_fails() {
    let dir = Path::new("/dev/shm");
    let Ok(dir) = tempfile::tempdir_in(dir) else {
        println!("!! NOT TESTED: there is no /dev/shm, where no project is counted");
        return;
    };
    let store = Store::new(dir.path().join("volumes"));
    let NotKept { why, .. } = store.keeps_sizes().unwrap_err();
    assert!(why.contains("quotas of projects") || why.contains("only root"), "{why}");
    let data = store.ensure(&shop(), &name("data"), None).unwrap();
    assert_eq!(store.kept(&shop(), &name("data")).unwrap(), None);
    assert!(!store.limit(&shop(), &name("data"), Limit::None).unwrap());
    fs::write(data.join("a"), "x").unwrap();
    let snapshot: SnapshotName = "20261127T171530Z".parse().unwrap();
    store.snapshot(&shop(), &name("data"), &snapshot, 0).unwrap();
    store.restore(&shop(), &name("data"), &snapshot, 0).unwrap();
    assert!(store.remove(&shop(), &name("data")).unwrap());
}

/// What was there before there was a limit counts, two volumes are two projects, and a number is free when its volume is gone.
#[test]
fn everything_in_a_volume_is_its_project_until_it_goes() {
    let Some((_dir, store)) = keeping() else { return };
    let (data, other) = (name("data"), name("other"));
    let path = store.ensure(&shop(), &data, None).unwrap();
    fs::create_dir_all(path.join("deep/er")).unwrap();
    fs::write(path.join("deep/er/file"), [1; 100_000]).unwrap();
    fs::hard_link(path.join("deep/er/file"), path.join("again")).unwrap();
    symlink("/etc/shadow", path.join("link")).unwrap();
    rustix::fs::mknodat(CWD, path.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(store.kept(&shop(), &data).unwrap(), None);
    assert!(store.limit(&shop(), &data, Limit::Exactly(2 * MIB)).unwrap());
    let project = project_of(&path);
    assert!(project >= FIRST);
    for inside in ["deep", "deep/er", "deep/er/file"] {
        assert_eq!(project_of(&path.join(inside)), project, "{inside}");
    }
    let kept = store.kept(&shop(), &data).unwrap().unwrap();
    assert_eq!((kept.size, kept.entries), (2 * MIB, 1_024));
    assert!((100_000..200_000).contains(&kept.used.bytes), "{kept:?}");
    assert_eq!(
        kept.used.entries, 3,
        "two folders and a file of two names; a link and a pipe cannot be given"
    );
    // What comes later is of it, too, and again changes nothing.
    fs::create_dir(path.join("new")).unwrap();
    assert_eq!(project_of(&path.join("new")), project);
    assert!(store.limit(&shop(), &data, Limit::Exactly(2 * MIB)).unwrap());
    assert_eq!(project_of(&path), project);

    let second = store.ensure(&shop(), &other, None).unwrap();
    assert!(store.limit(&shop(), &other, Limit::Exactly(MIB)).unwrap());
    assert_ne!(project_of(&second), project);
    // Nothing goes from one project to another by its name: whoever moves it has to copy it.
    let across = rustix::fs::rename(path.join("again"), second.join("again")).unwrap_err();
    assert_eq!(across, Errno::XDEV);
    assert_eq!(
        fs::hard_link(path.join("again"), second.join("again")).unwrap_err().raw_os_error(),
        Some(libc::EXDEV)
    );

    assert!(store.remove(&shop(), &data).unwrap());
    store.remove_all(&shop()).unwrap();
    assert!(is_free(&store, project), "the number is free");
}

#[test]
fn a_limit_grows_is_given_up_and_never_lies_below_what_there_is() {
    let Some((_dir, store)) = keeping() else { return };
    let data = name("data");
    let size = || store.kept(&shop(), &data).unwrap().map(|kept| kept.size);
    let path = store.ensure(&shop(), &data, None).unwrap();
    fs::write(path.join("file"), vec![1; 3 << 20]).unwrap();
    assert!(!store.limit(&shop(), &data, Limit::Exactly(2 * MIB)).unwrap(), "it holds more");
    assert_eq!(size(), None);
    assert!(store.limit(&shop(), &data, Limit::AtLeast(4 * MIB)).unwrap());
    assert!(store.limit(&shop(), &data, Limit::Exactly(8 * MIB)).unwrap());
    assert_eq!(size(), Some(8 * MIB));
    assert!(store.limit(&shop(), &data, Limit::AtLeast(4 * MIB)).unwrap());
    assert_eq!(size(), Some(8 * MIB), "nothing is taken away");
    assert!(!store.limit(&shop(), &data, Limit::Exactly(2 * MIB)).unwrap());
    assert_eq!(size(), Some(8 * MIB));
    assert!(store.limit(&shop(), &data, Limit::Exactly(4 * MIB)).unwrap());
    assert_eq!(size(), Some(4 * MIB));
    assert!(!store.limit(&shop(), &data, Limit::None).unwrap());
    assert_eq!(size(), None);
}

/// A number that an app wrote over the volume's own, or that came with a copy, is not believed: by it one volume would change another's limit.
#[test]
fn a_number_that_was_not_given_is_not_believed() {
    let Some((_dir, store)) = keeping() else { return };
    let (data, other) = (name("data"), name("other"));
    let victim = store.ensure(&shop(), &other, None).unwrap();
    assert!(store.limit(&shop(), &other, Limit::Exactly(64 * MIB)).unwrap());
    let path = store.ensure(&shop(), &data, None).unwrap();
    // Another directory's, which lies too far away to be this one's.
    let far = candidates(fs::metadata(&path).unwrap().ino() + COUNT / 2).next().unwrap();
    kernel::give(open_dir(&path).unwrap(), far, true).unwrap();
    assert_eq!(store.kept(&shop(), &data).unwrap(), None);
    assert!(store.limit(&shop(), &data, Limit::Exactly(MIB)).unwrap());
    assert_ne!(project_of(&path), far);
    assert!(is_free(&store, far));
    assert_eq!(store.kept(&shop(), &other).unwrap().unwrap().size, 64 * MIB);
    assert_ne!(project_of(&victim), project_of(&path));
}

/// Copies are made beside the volume, whatever it may take, and what takes its place is kept to its size.
#[test]
fn a_snapshot_is_not_counted_and_what_is_brought_back_is_limited() {
    let Some((_dir, store)) = keeping() else { return };
    let data = name("data");
    let snapshot: SnapshotName = "20261127T171530Z".parse().unwrap();
    let path = store.ensure(&shop(), &data, None).unwrap();
    fs::create_dir_all(path.join("a/b/c")).unwrap();
    fs::write(path.join("a/b/c/file"), vec![1; 3 << 20]).unwrap();
    assert!(store.limit(&shop(), &data, Limit::Exactly(4 * MIB)).unwrap());
    store.snapshot(&shop(), &data, &snapshot, 0).unwrap();
    let counted = store.kept(&shop(), &data).unwrap().unwrap().used.bytes;
    assert!(counted < 4 * MIB, "{counted}");
    for _ in 0..2 {
        let before = project_of(&path);
        store.restore(&shop(), &data, &snapshot, 0).unwrap();
        let kept = store.kept(&shop(), &data).unwrap().unwrap();
        assert_eq!((kept.size, kept.entries), (4 * MIB, 1_024));
        assert_eq!(kept.used.entries, 4);
        assert!((3 * MIB..4 * MIB).contains(&kept.used.bytes), "{kept:?}");
        assert_eq!(project_of(&path.join("a/b/c/file")), project_of(&path));
        assert_ne!(project_of(&path), before);
        assert!(is_free(&store, before), "what was replaced has left its number");
    }
    // It can be cleared away at every depth, and so can what only half came to a project.
    let folder = File::open(path.join("a/b")).unwrap();
    kernel::give(&folder, 0, false).unwrap();
    let after = project_of(&path);
    assert!(store.remove(&shop(), &data).unwrap());
    assert!(is_free(&store, after));
}

/// Root is not limited on ext4, and nothing else is spared. The limit is met to the block, by bytes and by entries.
#[test]
fn whoever_writes_meets_the_limit_to_the_block() {
    let Some((_dir, store)) = keeping() else { return };
    let data = name("data");
    let path = store.ensure(&shop(), &data, None).unwrap();
    assert!(store.limit(&shop(), &data, Limit::Exactly(MIB)).unwrap());
    // The file system asks what whoever writes is capable of, and this thread is capable of nothing.
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            let nothing = rustix::thread::CapabilitySet::empty();
            let sets = rustix::thread::CapabilitySets {
                effective: nothing,
                permitted: nothing,
                inheritable: nothing,
            };
            rustix::thread::set_capabilities(None, sets).unwrap();
            let mut file = File::create(path.join("fill")).unwrap();
            let mut written = 0_u64;
            let error = loop {
                match file.write(&[1; 4_096]) {
                    Ok(count) => written += count as u64,
                    Err(error) => break error,
                }
                assert!(written <= 2 * MIB);
            };
            (written, error.kind())
        }
    });
    let (written, kind) = writer.join().unwrap();
    assert!([io::ErrorKind::QuotaExceeded, io::ErrorKind::StorageFull].contains(&kind), "{kind:?}");
    assert!((MIB - 3 * 4_096..=MIB).contains(&written), "{written}");
    let seen = rustix::fs::statvfs(&path).unwrap();
    assert_eq!(seen.f_blocks * seen.f_frsize, MIB, "it is told as the volume's");
    assert_eq!(seen.f_files, 1_024);
}
