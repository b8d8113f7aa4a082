//! Archives as they are, as they break, and as an enemy makes them.

use super::*;
use crate::write::Writer;

const HASH: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn id() -> String {
    format!("a{}", "0".repeat(40))
}

fn head() -> Head {
    let journal_sha256 = hex::encode(Sha256::digest(b"journal"));
    Head {
        format: 1,
        platform: "0123456789abcdef".into(),
        journal_bytes: 7,
        journal_sha256,
        ..Head::default()
    }
}

fn part(path: &str) -> Place {
    Place::of(&format!("artifacts/a/b/shop/{}/{path}", id())).unwrap()
}

fn archive() -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
    writer.file(&Place::Journal, false, 7, &b"journal"[..]).unwrap();
    writer.file(&Place::Chunk("a".parse().unwrap(), HASH.into()), false, 5, &b"hello"[..]).unwrap();
    writer.file(&Place::Note("a/b/shop".parse().unwrap(), id()), false, 2, &b"{}"[..]).unwrap();
    writer.directory(&part("")).unwrap();
    writer.directory(&part("empty")).unwrap();
    let long = format!("deep/{}/run", "x".repeat(120));
    writer.file(&part(&long), true, 1_000, &[7; 1_000][..]).unwrap();
    writer.link(&part("link"), "/usr/bin/python3").unwrap();
    writer.missing(&Place::Note("a/b/gone".parse().unwrap(), id()));
    writer.finish().unwrap().0
}

#[test]
fn what_was_written_is_read() {
    let archive = archive();
    let (read, foot) = verify(&archive[..]).unwrap();
    assert_eq!(read, head());
    let sections: Vec<(&str, u64, u64)> =
        foot.sections.iter().map(|it| (it.name.as_str(), it.entries, it.bytes)).collect();
    let artifact = format!("artifacts/a/b/shop/{}", id());
    assert_eq!(sections, [("journal.db", 1, 7), ("chunks/a", 1, 5), (artifact.as_str(), 5, 1_002)]);
    assert_eq!(foot.missing.len(), 1);
    let mut reader = Reader::begin(&archive[..]).unwrap();
    let mut kinds = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        kinds.push(entry.kind);
    }
    assert_eq!(kinds[5], Kind::File { exec: true, size: 1_000 });
    assert_eq!(kinds[6], Kind::Link { target: "/usr/bin/python3".to_owned() });
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn a_file_that_shrinks_is_noticed() {
    let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
    let shorter = writer.file(&Place::Journal, false, 8, &b"journal"[..]);
    assert!(matches!(shorter, Err(BackupError::Changed { .. })));
}

#[test]
fn no_cut_and_no_change_goes_unnoticed() {
    let archive = archive();
    for cut in (0..archive.len() - 1).step_by(97) {
        assert!(verify(&archive[..cut]).is_err(), "cut at {cut}");
    }
    assert!(verify(&[&archive[..], b"x"].concat()[..]).is_err());
    // Behind the head, whose text has no hash.
    let begin = 2 * BLOCK + serde_json::to_vec_pretty(&head()).unwrap().len();
    let foot = archive.windows(13).rposition(|window| window == b"manifest.json").unwrap();
    for at in (begin..foot).step_by(41) {
        let mut changed = archive.clone();
        changed[at] ^= 0x20;
        assert!(verify(&changed[..]).is_err(), "byte {at}");
    }
}

/// An archive with `entries` between its head and its foot, however wrong.
fn made_up(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let text = serde_json::to_vec(&head()).unwrap();
    let file = |name: &str, flag, target: &str, content: &[u8]| {
        let header = Header {
            name: name.into(),
            flag,
            exec: false,
            size: content.len() as u64,
            target: target.into(),
        };
        let mut bytes = header.encode();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + padding(content.len() as u64), 0);
        bytes
    };
    archive.extend(file("berth-backup.json", Flag::File, "", &text));
    for (name, kind, target) in entries {
        let flag = match kind {
            b'2' => Flag::Link,
            b'5' => Flag::Directory,
            _ => Flag::File,
        };
        let mut bytes = file(name, flag, target, b"");
        if !matches!(kind, b'0' | b'2' | b'5') {
            // A device, a hard link, a sparse file: the sum is made right.
            let at = bytes.len() - BLOCK;
            let sum: u64 =
                u64::from_str_radix(std::str::from_utf8(&bytes[at + 148..at + 154]).unwrap(), 8).unwrap();
            bytes[at + 156] = *kind;
            let sum = sum - u64::from(b'0') + u64::from(*kind);
            bytes[at + 148..at + 154].copy_from_slice(format!("{sum:06o}").as_bytes());
        }
        archive.extend(bytes);
    }
    archive
}

#[test]
fn what_no_backup_holds_is_refused() {
    let inside = |path: &str| format!("artifacts/a/b/shop/{}/{path}", id());
    let above = inside("../../x");
    let note = format!("artifacts/a/b/shop/{}.json", id());
    let file = inside("file");
    for entries in [
        &[("../etc/passwd", b'0', "")][..],
        &[("/etc/passwd", b'0', "")],
        &[(above.as_str(), b'0', "")],
        &[("keys/kek", b'0', "")],
        &[("journal.db", b'2', "/etc/passwd")],
        &[("journal.db", b'5', "")],
        &[(note.as_str(), b'2', "/etc/passwd")],
        &[(file.as_str(), b'1', "journal.db")],
        &[(file.as_str(), b'3', "")],
        &[(file.as_str(), b'4', "")],
        &[(file.as_str(), b'6', "")],
        &[(file.as_str(), b'S', "")],
        &[(file.as_str(), b'2', "")],
        &[(file.as_str(), b'0', ""), ("key.json", b'0', ""), (note.as_str(), b'0', "")],
        &[("berth-backup.json", b'0', "")],
    ] {
        let refused = verify(&made_up(entries)[..]);
        assert!(matches!(refused, Err(BackupError::Hostile { .. })), "{entries:?}: {refused:?}");
    }
}

#[test]
fn huge_lengths_are_not_believed() {
    for size in [u64::MAX, 1 << 40, HEAD_MAX + 1] {
        let header = Header {
            name: "berth-backup.json".into(),
            flag: Flag::File,
            exec: false,
            size,
            target: String::new(),
        };
        assert!(verify(&header.encode()[..]).is_err(), "{size}");
    }
    let newer = Head { format: Head::FORMAT + 1, ..head() };
    let archive = Writer::begin(Vec::new(), &newer).unwrap().finish().unwrap().0;
    assert!(matches!(verify(&archive[..]), Err(BackupError::Newer { found }) if found == Head::FORMAT + 1));
    for other in [&b""[..], b"PK\x03\x04 something else", &[0; 4_096]] {
        assert!(verify(other).is_err());
    }
}
