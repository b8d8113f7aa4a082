//! The files: who may open them, and which formats.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_journal::{AdvanceError, Journal, OpenError, Options, Position};
use rusqlite::Connection;

use crate::fixture::{append, bodies, open};

fn alter(dir: &Path, sql: &str) {
    Connection::open(dir.join("journal.db")).unwrap().execute_batch(sql).unwrap();
}

fn refused(dir: &Path) -> OpenError {
    Journal::open(dir, Options::default()).unwrap_err()
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let journal = open(&dir);
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 0, &[b"1"])).await.await.unwrap();
    journal.save_snapshot([1; 32], Position(1), b"state").unwrap();
    journal.backup_to(&dir.join("backup")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_journal_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let second = refused(dir.path());
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(journal);
    open(dir.path()).close().unwrap();
}

#[tokio::test]
async fn a_newer_format_is_read_only_if_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 0, &[b"1"])).await.await.unwrap();
    journal.close().unwrap();

    alter(dir.path(), "ALTER TABLE event ADD COLUMN later TEXT NOT NULL DEFAULT ''; PRAGMA user_version = 3");
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 1, &[b"2"])).await.await.unwrap();
    assert_eq!(bodies(&journal), [b"1", b"2"]);
    journal.close().unwrap();

    alter(dir.path(), "UPDATE format SET readable_from = 3");
    let newer = refused(dir.path());
    assert!(matches!(newer, OpenError::Newer { found: 3, readable_from: 3, known: 2 }), "{newer}");
}

/// As a program that knew the first format alone left it.
fn of_format_1(dir: &Path) {
    open(dir).close().unwrap();
    alter(dir, "UPDATE format SET readable_from = 1; PRAGMA user_version = 1");
}

#[tokio::test]
async fn an_older_format_stays_until_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).format(), Journal::newest_format(), "a new journal");
    of_format_1(dir.path());
    let journal = open(dir.path());
    assert_eq!(journal.format(), 1);
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 0, &[b"1"])).await.await.unwrap();
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.format(), 1, "opening and writing is no step");
    let unknown = journal.advance(Journal::newest_format() + 1).await.unwrap_err();
    assert!(matches!(unknown, AdvanceError::Unknown { .. }), "{unknown}");
    // Appends before and after it count, and the epoch goes on.
    let start = journal.begin_epoch().await;
    let before = journal.append(append(start.epoch, "a", 1, &[b"2"])).await;
    assert_eq!(journal.advance(2).await.unwrap(), 2);
    journal.append(append(start.epoch, "a", 2, &[b"3"])).await.await.unwrap();
    before.await.unwrap();
    assert_eq!((journal.advance(1).await.unwrap(), journal.format()), (2, 2), "there is no way back");
    let copy = dir.path().join("copy");
    journal.backup_to(&copy).unwrap();
    drop(journal);
    for file in [dir.path().join("journal.db"), copy] {
        let database = Connection::open(file).unwrap();
        let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!((number("PRAGMA user_version"), number("SELECT readable_from FROM format")), (2, 2));
    }
    let journal = open(dir.path());
    assert_eq!((bodies(&journal).len(), journal.format()), (3, 2));
}

#[tokio::test]
async fn a_foreign_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    alter(dir.path(), "CREATE TABLE theirs (x); PRAGMA application_id = 7");
    let foreign = refused(dir.path());
    assert!(matches!(foreign, OpenError::Foreign { application_id: 7, .. }), "{foreign}");
    fs::write(dir.path().join("journal.db"), "not a database at all".repeat(500)).unwrap();
    let broken = refused(dir.path());
    assert!(matches!(broken, OpenError::Database { .. }), "{broken}");
}

#[tokio::test]
async fn a_check_finds_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", 0, &[b"1", b"2", b"3"])).await.await.unwrap();
    journal.close().unwrap();
    alter(dir.path(), "DELETE FROM event WHERE position = 2");
    let journal = open(dir.path());
    assert_eq!(journal.check().unwrap().len(), 2);
    let replayed = journal.replay(Position(1), Position(3), |_| Ok::<_, std::convert::Infallible>(()));
    assert!(replayed.unwrap_err().to_string().contains("cannot read on"));
    journal.subscribe(Position(1)).take(10).unwrap_err();
}
