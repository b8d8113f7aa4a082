//! Snapshots and backups.

use std::fs;
use std::path::{Path, PathBuf};

use berth_journal::{BackupError, Journal, Position, Snapshot, SnapshotError};

use crate::fixture::{append, bodies, open};

const KEY: [u8; 32] = [0xab; 32];

async fn with_events(dir: &Path, texts: &[&[u8]]) -> Journal {
    let journal = open(dir);
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", start.head.0, texts)).await.await.unwrap();
    journal
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snapshot")).collect()
}

#[tokio::test]
async fn a_snapshot_comes_back_and_replaces_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let journal = with_events(dir.path(), &[b"1", b"2", b"3"]).await;
    assert_eq!(journal.load_snapshot(KEY), None);
    journal.save_snapshot([1; 32], Position(0), b"empty").unwrap();
    assert_eq!(
        journal.load_snapshot([1; 32]),
        Some(Snapshot { position: Position(0), bytes: b"empty".to_vec() })
    );
    fs::write(dir.path().join("snapshot.torn.unfinished"), b"half").unwrap();
    for (position, bytes) in [(2, b"two".as_slice()), (3, b"three")] {
        journal.save_snapshot(KEY, Position(position), bytes).unwrap();
        let found = journal.load_snapshot(KEY).unwrap();
        assert_eq!((found.position, found.bytes.as_slice()), (Position(position), bytes));
    }
    assert_eq!(snapshots(dir.path()).len(), 1);
    let ahead = journal.save_snapshot(KEY, Position(4), b"four").unwrap_err();
    assert!(matches!(ahead, SnapshotError::Ahead { .. }), "{ahead}");
    drop(journal);
    assert_eq!(open(dir.path()).load_snapshot(KEY).unwrap().bytes, b"three");
}

#[tokio::test]
async fn a_snapshot_with_any_damage_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let journal = with_events(dir.path(), &[b"1", b"2", b"3"]).await;
    journal.save_snapshot(KEY, Position(2), b"state").unwrap();
    let path = snapshots(dir.path()).remove(0);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert_eq!(journal.load_snapshot(KEY), None, "byte {at} was flipped");
        fs::write(&path, &good[..at]).unwrap();
        assert_eq!(journal.load_snapshot(KEY), None, "it was cut to {at} bytes");
    }
    fs::write(&path, [good.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(journal.load_snapshot(KEY), None);
    fs::rename(&path, dir.path().join(format!("snapshot.{}", "01".repeat(32)))).unwrap();
    assert_eq!(journal.load_snapshot([1; 32]), None);
}

#[tokio::test]
async fn a_snapshot_of_another_history_is_ignored() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = with_events(dir.path(), &[b"1", b"2"]).await;
    journal.save_snapshot(KEY, Position(2), b"state").unwrap();
    let path = snapshots(dir.path()).remove(0);
    let shorter = with_events(other.path(), &[b"1"]).await;
    fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
    assert_eq!(shorter.load_snapshot(KEY), None);
    drop(shorter);
    let diverged = with_events(other.path(), &[b"not 2"]).await;
    assert_eq!(diverged.load_snapshot(KEY), None);
}

#[tokio::test]
async fn a_backup_is_a_journal() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = with_events(dir.path(), &[b"1", b"2"]).await;
    let path = other.path().join("journal.db");
    journal.backup_to(&path).unwrap();
    let again = journal.backup_to(&path).unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again}");
    journal.backup_to(&other.path().join("no such directory").join("x")).unwrap_err();
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);

    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 2, &[b"3"])).await.await.unwrap();
    assert_eq!(bodies(&open(other.path())), [b"1", b"2"]);
    assert_eq!(bodies(&journal), [b"1", b"2", b"3"]);
}
