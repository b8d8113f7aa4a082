//! A restore is whole or nothing starts, wherever it is cut off.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use berth_backup::{Place, Writer};
use berth_journal::{Journal, Options};

use super::*;
use crate::home::Home;

const KEK: [u8; 32] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 32,
];

struct Stage {
    temp: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { temp }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A backup of a platform without apps; with secrets that its head tells of, if they are to be.
    fn backup(&self, secrets: bool, key: Option<[u8; 32]>) -> PathBuf {
        let dir = self.at("journal");
        let journal = Journal::open(&dir, Options::default()).unwrap();
        let copy = self.at("copy.db");
        drop(fs::remove_file(&copy));
        journal.backup_to(&copy).unwrap();
        let bytes = fs::read(&copy).unwrap();
        let names = vec!["TOKEN".parse().unwrap()];
        let head = Head {
            format: Head::FORMAT,
            platform: "0123456789abcdef".to_owned(),
            home: "/old/home".to_owned(),
            journal_bytes: bytes.len() as u64,
            key_id: Vault::new(KeyEncryptionKey::new(KEK)).key_id(),
            secrets: secrets.then(|| ("a/b/shop".parse().unwrap(), names)).into_iter().collect(),
            ..Head::default()
        };
        let path = self.at("backup.tar");
        let mut writer = Writer::begin(File::create(&path).unwrap(), &head).unwrap();
        writer.file(&Place::Journal, false, bytes.len() as u64, &bytes[..]).unwrap();
        if let Some(key) = key {
            let text = KeyFile::new("0123456789abcdef", &key, Some("berth_x".to_owned())).encode();
            writer.file(&Place::Key, false, text.len() as u64, &text[..]).unwrap();
        }
        writer.finish().unwrap().0.flush().unwrap();
        path
    }

    /// Restores, halting at the `step`-th step when there are so many.
    fn restore(
        &self,
        file: &Path,
        key: Option<&Path>,
        without_key: bool,
        step: usize,
    ) -> Result<Restored, Refused> {
        let args = RestoreArgs { file: file.to_owned(), key: key.map(Path::to_owned), without_key };
        let mut steps = 0;
        restore(&args, &self.at("home"), &self.at("ranges"), &SystemClock::new(), &mut || {
            steps += 1;
            if steps == step { Err(HomeError::Halted) } else { Ok(()) }
        })
    }

    /// What `berth up` does first.
    fn start(&self) -> Result<Home, HomeError> {
        home::create(&self.at("home"), &self.at("ranges"), &SystemClock::new(), &mut || Ok(()))
    }
}

#[test]
fn a_restore_that_is_cut_off_starts_nothing_and_is_made_good_by_the_next() {
    for step in 1.. {
        let stage = Stage::new();
        let backup = stage.backup(true, Some(KEK));
        let whole = match stage.restore(&backup, None, false, step) {
            Err(Refused::Home(HomeError::Halted)) => false,
            Ok(_) => true,
            Err(other) => panic!("step {step}: {other:?}"),
        };
        let complete = stage.at("home").join(PLATFORM_FILE).try_exists().unwrap();
        if !whole && !complete {
            // Before anything was laid out an empty directory is as good as none; after that nothing starts in it.
            if stage.at("home").join(RESTORING).try_exists().unwrap() {
                assert!(matches!(stage.start(), Err(HomeError::HalfRestored { .. })), "step {step}");
            }
            stage.restore(&backup, None, false, 0).unwrap();
        }
        let home = stage.start().unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_ne!(home.platform.platform, "0123456789abcdef");
        assert_eq!(fs::read(home.path.join("keys/kek")).unwrap(), KEK);
        assert_eq!(fs::read_to_string(home.path.join("keys/owner-token")).unwrap(), "berth_x");
        assert_eq!(fs::metadata(home.path.join("journal/journal.db")).unwrap().mode() & 0o777, 0o600);
        if whole {
            assert!(step > 10, "only {step} steps were tried");
            return;
        }
    }
}

#[test]
fn without_the_right_key_it_is_said_what_is_lost_and_how_to_go_on() {
    let stage = Stage::new();
    let backup = stage.backup(true, None);
    let refused = stage.restore(&backup, None, false, 0).unwrap_err();
    let problem = refused.problem();
    assert_eq!(problem.code, Code::BackupKeyMissing);
    assert!(problem.detail.contains("shop: TOKEN") && problem.next.unwrap().contains("--without-key"));
    let other = stage.at("other.key");
    fs::write(&other, KeyFile::new("x", &[9; 32], None).encode()).unwrap();
    assert!(matches!(stage.restore(&backup, Some(&other), false, 0), Err(Refused::OtherKey { .. })));
    assert!(stage.start().is_err(), "nothing starts");
    // The home's own key file, as it lay there.
    let raw = stage.at("kek");
    fs::write(&raw, KEK).unwrap();
    assert!(stage.restore(&backup, Some(&raw), false, 0).unwrap().lost.is_empty());
    stage.start().unwrap();

    let stage = Stage::new();
    let backup = stage.backup(true, None);
    assert_eq!(stage.restore(&backup, None, true, 0).unwrap().lost, ["shop: TOKEN"]);
    assert_ne!(fs::read(stage.start().unwrap().path.join("keys/kek")).unwrap(), KEK);
    // A platform without secrets loses nothing with its key.
    let stage = Stage::new();
    let backup = stage.backup(false, None);
    assert!(stage.restore(&backup, None, false, 0).unwrap().lost.is_empty());
}

#[test]
fn what_is_there_is_left_alone() {
    let stage = Stage::new();
    let backup = stage.backup(false, None);
    fs::create_dir(stage.at("home")).unwrap();
    fs::write(stage.at("home").join("mine"), "precious").unwrap();
    assert!(matches!(stage.restore(&backup, None, false, 0), Err(Refused::NotEmpty { .. })));
    fs::create_dir(stage.at("home").join(RESTORING)).unwrap();
    assert!(matches!(stage.restore(&backup, None, false, 0), Err(Refused::NotEmpty { .. })));
    assert_eq!(fs::read_to_string(stage.at("home").join("mine")).unwrap(), "precious");
    fs::remove_dir_all(stage.at("home")).unwrap();
    stage.restore(&backup, None, false, 0).unwrap();
    let before = stage.start().unwrap().platform;
    assert!(matches!(stage.restore(&backup, None, false, 0), Err(Refused::NotEmpty { .. })));
    assert_eq!(stage.start().unwrap().platform, before);
}

#[test]
fn a_damaged_backup_leaves_nothing_that_starts() {
    let stage = Stage::new();
    let backup = stage.backup(false, None);
    let whole = fs::read(&backup).unwrap();
    for cut in [0, 100, 2_000, whole.len() / 2, whole.len() - 1_500] {
        fs::write(&backup, &whole[..cut]).unwrap();
        let refused = stage.restore(&backup, None, false, 0).unwrap_err();
        assert_eq!(refused.problem().code, Code::BackupInvalid, "{cut}: {refused:?}");
        assert!(!stage.at("home").join(PLATFORM_FILE).try_exists().unwrap());
    }
    fs::write(&backup, &whole).unwrap();
    stage.restore(&backup, None, false, 0).unwrap();
    stage.start().unwrap();
}
