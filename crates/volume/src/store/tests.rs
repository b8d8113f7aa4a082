//! Volumes come, are measured, change hands and go.

use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;

fn shop() -> AppId {
    "default/default/shop".parse().unwrap()
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn owner(uid: u32, users: std::ops::Range<u32>) -> Owner {
    Owner { uid, gid: uid, users, former: vec![70_000..70_001, 80_000..90_000] }
}

fn as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("!! NOT TESTED: only root gives files away");
    }
    root
}

#[test]
fn a_volume_is_there_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("volumes"));
    assert_eq!((store.list(&shop()).unwrap(), store.has_any(&shop())), (vec![], false));
    let data = store.ensure(&shop(), &name("data"), None).unwrap();
    store.ensure(&shop(), &name("cache"), None).unwrap();
    fs::write(data.join("a"), "kept").unwrap();
    assert_eq!(store.ensure(&shop(), &name("data"), None).unwrap(), data);
    assert_eq!(fs::read(data.join("a")).unwrap(), b"kept");
    assert_eq!(store.list(&shop()).unwrap(), [name("cache"), name("data")]);
    assert_eq!(store.used(&shop(), &name("data")).unwrap().unwrap().entries, 1);
    assert_eq!(store.used(&shop(), &name("none")).unwrap(), None);
    assert!(store.remove(&shop(), &name("data")).unwrap());
    assert!(!store.remove(&shop(), &name("data")).unwrap());
    // A removal that was cut off is finished by the next start.
    let half = store.path(&shop(), &name("cache")).with_file_name(".gone");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("left"), "x").unwrap();
    store.sweep().unwrap();
    assert!(!half.try_exists().unwrap());
    assert_eq!(store.list(&shop()).unwrap(), [name("cache")]);
    store.remove_all(&shop()).unwrap();
    assert!(!store.has_any(&shop()));
    store.remove_all(&shop()).unwrap();
}

#[test]
fn what_a_link_in_a_volume_leads_to_is_neither_given_away_nor_removed() {
    if !as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("volumes"));
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "x").unwrap();
    let data = store.ensure(&shop(), &name("data"), Some(&owner(70_000, 70_000..70_001))).unwrap();
    symlink(&outside, data.join("folder")).unwrap();
    symlink(outside.join("secret"), data.join("file")).unwrap();
    // By a hard link to what is not the app's nothing changes hands either.
    fs::hard_link(outside.join("secret"), data.join("hard")).unwrap();
    fs::write(data.join("own"), "x").unwrap();
    std::os::unix::fs::lchown(data.join("folder"), Some(70_000), Some(70_000)).unwrap();
    std::os::unix::fs::chown(data.join("own"), Some(70_000), Some(70_000)).unwrap();
    store.ensure(&shop(), &name("data"), Some(&owner(80_005, 80_000..90_000))).unwrap();
    let uid = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    assert_eq!([uid(&data), uid(&data.join("own")), uid(&data.join("folder"))], [80_005; 3]);
    assert_eq!([uid(&outside), uid(&outside.join("secret")), uid(&data.join("hard"))], [0; 3]);
    store.remove(&shop(), &name("data")).unwrap();
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"x");
}

#[test]
fn what_users_of_an_image_gave_each_other_stays_so() {
    if !as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("volumes"));
    let image = owner(80_000, 80_000..90_000);
    let data = store.ensure(&shop(), &name("data"), Some(&image)).unwrap();
    fs::write(data.join("own"), "x").unwrap();
    // As a database's image does before it gives up being root.
    std::os::unix::fs::chown(&data, Some(80_999), Some(80_999)).unwrap();
    std::os::unix::fs::chown(data.join("own"), Some(80_999), Some(80_999)).unwrap();
    store.ensure(&shop(), &name("data"), Some(&image)).unwrap();
    let uid = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    assert_eq!([uid(&data), uid(&data.join("own"))], [80_999; 2]);
    store.ensure(&shop(), &name("data"), Some(&owner(70_000, 70_000..70_001))).unwrap();
    assert_eq!([uid(&data), uid(&data.join("own"))], [70_000; 2]);
    assert_eq!(fs::symlink_metadata(&data).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_link_in_place_of_a_volume_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("volumes"));
    let data = store.ensure(&shop(), &name("data"), None).unwrap();
    fs::remove_dir(&data).unwrap();
    symlink(dir.path(), &data).unwrap();
    assert!(matches!(store.ensure(&shop(), &name("data"), None), Err(VolumeError::NotADirectory(_))));
    store.used(&shop(), &name("data")).unwrap_err();
}
