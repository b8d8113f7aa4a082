//! A home is made whole however often its making is cut short, and refused where it is not safe.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use berth_clock::SystemClock;

use super::*;

struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        // As root the users of apps must be able to walk down to the home.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { temp }
    }

    fn home(&self) -> PathBuf {
        self.temp.path().join("home")
    }

    fn ranges(&self) -> PathBuf {
        self.temp.path().join("ranges")
    }

    /// Makes the home, halting at the `at`-th step when there are so many.
    fn create(&self, at: usize) -> Result<Home, HomeError> {
        let mut step = 0;
        create(&self.home(), &self.ranges(), &SystemClock::new(), &mut || {
            step += 1;
            if step == at { Err(HomeError::Halted) } else { Ok(()) }
        })
    }

    fn made(&self) -> Home {
        self.create(0).unwrap()
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_home_halted_after_any_step_is_finished_by_the_next_start() {
    for at in 1.. {
        let place = Place::new();
        match place.create(at) {
            Err(HomeError::Halted) => {}
            Ok(_) => {
                assert!(at > 10, "only {at} steps were tried");
                return;
            }
            Err(other) => panic!("step {at}: {other}"),
        }
        // Halted again at the same step: doing a step twice must be harmless too.
        drop(place.create(at));
        let first = place.made();
        let second = place.made();
        assert_eq!(first.platform, second.platform, "step {at}");
        assert_eq!(first.key().unwrap().expose(), second.key().unwrap().expose(), "step {at}");
        Home::open(&place.home()).unwrap();
        let claims = fs::read_dir(place.ranges()).map_or(0, Iterator::count);
        // The lock and one claim as root, nothing else ever.
        assert!(claims == if rustix::process::geteuid().is_root() { 2 } else { 0 }, "step {at}");
    }
}

#[test]
fn only_its_owner_reads_it() {
    let place = Place::new();
    let home = place.made();
    let mode = |name: &str| fs::metadata(home.path.join(name)).unwrap().mode() & 0o7777;
    let root = home.platform.uid_base.is_some();
    assert_eq!(mode("."), if root { 0o710 } else { 0o700 });
    assert_eq!(mode("routing"), if root { 0o2750 } else { 0o700 });
    assert_eq!((mode("keys"), mode("keys/kek"), mode("platform.json")), (0o700, 0o600, 0o600));
    assert_eq!((mode("journal"), mode("chunks"), mode("logs/platform")), (0o700, 0o700, 0o700));
    assert_eq!(home.platform.platform.len(), 16);
}

#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.home()).unwrap();
    fs::write(place.home().join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(place.create(0), Err(HomeError::Foreign { .. })));
    assert_eq!(fs::read_dir(place.home()).unwrap().count(), 1);
}

#[test]
fn wide_modes_are_refused() {
    let place = Place::new();
    let home = place.made();
    chmod(&home.path, 0o755);
    assert!(matches!(place.create(0), Err(HomeError::Mode { .. })));
    assert!(matches!(Home::open(&home.path), Err(HomeError::Mode { .. })));
    chmod(&home.path, 0o710);
    chmod(&home.path.join("keys/kek"), 0o640);
    assert!(matches!(place.create(0), Err(HomeError::Mode { .. })));
}

#[test]
fn a_newer_format_is_refused_even_with_fields_of_its_own() {
    let place = Place::new();
    let home = place.made();
    fs::write(home.path.join(PLATFORM_FILE), r#"{"format": 2, "shape": "round"}"#).unwrap();
    assert!(matches!(place.create(0), Err(HomeError::Newer { found: 2 })));
}

#[test]
fn a_missing_empty_short_or_constant_key_is_refused_and_never_replaced() {
    let place = Place::new();
    let home = place.made();
    let key = home.path.join("keys/kek");
    fs::remove_file(&key).unwrap();
    assert!(matches!(place.create(0), Err(HomeError::Key { problem: "is missing", .. })));
    for (content, problem) in [
        (vec![], "is empty"),
        (vec![1, 2, 3], "is not 32 bytes long"),
        (vec![0; 32], "is a constant, not a random key"),
    ] {
        fs::write(&key, &content).unwrap();
        chmod(&key, 0o600);
        match place.create(0) {
            Err(HomeError::Key { problem: found, .. }) => assert_eq!(found, problem),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&key).unwrap(), content);
    }
}

#[test]
fn a_home_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let home = place.made();
    std::os::unix::fs::chown(&home.path, Some(12_345), None).unwrap();
    assert!(matches!(place.create(0), Err(HomeError::Owner { owner: 12_345, wanted: 0, .. })));
}

#[test]
fn a_link_is_no_home() {
    let place = Place::new();
    std::os::unix::fs::symlink("/tmp", place.home()).unwrap();
    assert!(matches!(place.create(0), Err(HomeError::NotADirectory { .. })));
}
