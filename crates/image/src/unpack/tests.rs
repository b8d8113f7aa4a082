//! Layers as builders make them, and as nobody should.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

/// A layer in the making.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds an entry; its path is written as it is, which `tar` itself would refuse for some.
    fn add(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        let bytes = header.as_old_mut();
        bytes.name[..path.len()].copy_from_slice(path.as_bytes());
        bytes.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", 0o755, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, path, to, 0o777, b"")
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Link, path, to, 0o644, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Directories to unpack into, with something beside them that must not change.
struct Place {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/d")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        fs::create_dir(dir.path().join("inside")).unwrap();
        let before = outside(dir.path());
        Self { dir, before }
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, ImageError> {
        self.unpack_within(bytes, &Limits::default())
    }

    fn unpack_within(&self, bytes: &[u8], limits: &Limits) -> Result<Unpacked, ImageError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let into = crate::beneath::open_root(&self.dir.path().join("inside")).unwrap();
        let done = unpack(file, into.as_fd(), Ownership::Own, limits, &AtomicBool::new(false));
        assert_eq!(outside(self.dir.path()), self.before, "something outside changed");
        done
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("inside").join(path)
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.at(path)).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let stat = self.stat(path);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        let trusted = rustix::process::geteuid().is_root();
        let name = if trusted { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        rustix::fs::lgetxattr(self.at(path), name, &mut [0_u8; 4]) == Ok(1)
    }
}

/// All that lies beside `inside`, and what the machine would give away first.
fn outside(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(at) = todo.pop() {
        let stat = fs::symlink_metadata(&at).unwrap();
        let content = if stat.is_file() { fs::read_to_string(&at).unwrap() } else { String::new() };
        // The folder that holds `inside` gets no new entry, but `inside` itself may change.
        found.insert(at.clone(), format!("{:o} {} {} {content}", stat.mode(), stat.uid(), stat.nlink()));
        if stat.is_dir() {
            let entries = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path());
            todo.extend(entries.filter(|path| *path != root.join("inside")));
        }
    }
    found
}

#[test]
fn a_layer_is_laid_out_as_the_overlay_takes_it() {
    let place = Place::new();
    let layer = Layer::new()
        .dir("./")
        .add(EntryType::Directory, "d", "", 0o700, b"")
        .file("/d/absolute", "a")
        .add(EntryType::Regular, "d/suid", "", 0o4755, b"s")
        .hardlink("d/hard", "./d/absolute")
        .symlink("d/soft", "../../../etc/passwd")
        .add(EntryType::Fifo, "d/pipe", "", 0o622, b"")
        .add(EntryType::Char, "dev/null", "", 0o666, b"")
        .file("implied/.wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/.wh..wh.plnk", "")
        .file("opaque/kept", "k");
    let done = place.unpack(&layer.bytes()).unwrap();
    assert_eq!((done.entries, done.bytes, done.devices), (12, 3, 1));
    let mode = |path: &str| place.stat(path).mode() & 0o7777;
    assert_eq!(
        [mode("d"), mode("d/absolute"), mode("d/suid"), mode("d/pipe"), mode("implied")],
        [0o700, 0o644, 0o4755, 0o622, 0o755]
    );
    assert_eq!(place.stat("d/hard").ino(), place.stat("d/absolute").ino());
    assert_eq!(fs::read_link(place.at("d/soft")).unwrap(), Path::new("../../../etc/passwd"));
    assert!(place.stat("d/pipe").file_type().is_fifo());
    assert!(!place.at("dev/null").try_exists().unwrap());
    assert!(place.is_whiteout("implied/gone") && place.is_opaque("opaque") && !place.is_opaque("implied"));
    assert_eq!(fs::read_dir(place.at("opaque")).unwrap().count(), 1);
    for path in ["d", "d/absolute", "d/soft"] {
        assert_eq!(place.stat(path).mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn a_whiteout_is_about_lower_layers_whichever_comes_first() {
    let place = Place::new();
    let layer = Layer::new()
        .file("a/x", "1")
        .file(".wh.a", "")
        .file(".wh.b", "")
        .file("b/x", "1")
        .file(".wh.c", "")
        .dir("c")
        .file("d", "1")
        .file(".wh.d", "")
        .file(".wh.e", "")
        .file("e", "1")
        .file("f", "1")
        .dir("f");
    place.unpack(&layer.bytes()).unwrap();
    for path in ["a", "b", "c", "f"] {
        assert!(place.stat(path).is_dir() && place.is_opaque(path), "{path}");
    }
    assert!(place.stat("a/x").is_file() && place.stat("b/x").is_file());
    assert_eq!([fs::read(place.at("d")).unwrap(), fs::read(place.at("e")).unwrap()], [b"1", b"1"]);
}

#[test]
fn the_same_layer_has_one_digest_however_it_is_compressed() {
    let plain = Layer::new().file("a", &"x".repeat(100_000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    // Parallel compressors write several members.
    let (one, two) = plain.split_at(1_000);
    let members: Vec<u8> = [one, two]
        .into_iter()
        .flat_map(|part| {
            let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            member.write_all(part).unwrap();
            member.finish().unwrap()
        })
        .collect();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for form in [&plain, &gzip, &members, &zstd] {
        let place = Place::new();
        assert_eq!(place.unpack(form).unwrap().diff_id, Digest::of(&plain));
        assert_eq!(place.stat("a").len(), 100_000);
    }
    for form in [&gzip, &zstd] {
        let cut = &form[..form.len() / 2];
        assert_eq!(Place::new().unpack(cut).unwrap_err().code(), "image_invalid");
    }
}

#[test]
fn long_names_and_attributes_of_pax() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let layer = Layer::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"5.75"),
            ("SCHILY.xattr.user.mine", b"a\nb"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            ),
        ])
        .file("short", "content");
    place.unpack(&layer.bytes()).unwrap();
    assert_eq!((place.stat(&long).len(), place.stat(&long).mtime()), (7, 5));
    let mut value = [0; 16];
    let path = place.at(&long);
    match rustix::fs::getxattr(&path, "user.mine", &mut value) {
        Ok(length) => assert_eq!(&value[..length], b"a\nb"),
        Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
    }
    for gone in ["security.capability", "user.overlay.redirect"] {
        assert!(rustix::fs::getxattr(&path, gone, &mut value).is_err(), "{gone}");
    }
}

#[test]
fn sparse_files_keep_their_holes() {
    let place = Place::new();
    let mut map = b"2\n1048576\n3\n4194304\n0\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abc");
    let layer = Layer::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"4194304"),
        ])
        .add(EntryType::Regular, "GNUSparseFile.0/sparse", "", 0o644, &map)
        .pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"10,2")])
        .file("old", "xy");
    place.unpack(&layer.bytes()).unwrap();
    let content = fs::read(place.at("sparse")).unwrap();
    assert_eq!((content.len(), &content[1 << 20..(1 << 20) + 4]), (4 << 20, &b"abc\0"[..]));
    assert!(place.stat("sparse").blocks() < 100);
    assert_eq!(fs::read(place.at("old")).unwrap(), b"\0\0\0\0\0\0\0\0\0\0xy\0\0\0\0\0\0\0\0");
    for bad in [&b"10,3"[..], b"19,2", b"10,1,9,1", b"10", b"a,2", b"18446744073709551615,2"] {
        let layer =
            Layer::new().pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.map", bad)]).file("bad", "xy");
        assert_eq!(Place::new().unpack(&layer.bytes()).unwrap_err().code(), "image_invalid");
    }
}

#[test]
fn every_known_way_out_is_refused() {
    let hostile: Vec<(&str, Layer)> = vec![
        ("up", Layer::new().file("../outside/secret", "x")),
        ("up from within", Layer::new().dir("d").file("d/../../outside/secret", "x")),
        ("through a link", Layer::new().symlink("l", "../outside").file("l/secret", "x")),
        ("through an absolute link", Layer::new().symlink("l", "/tmp").file("l/berth-was-here", "x")),
        ("through a link in the middle", Layer::new().symlink("d/l", "../../outside").file("d/l/d/x", "x")),
        (
            "through a link of /proc",
            Layer::new().symlink("l", "/proc/self/root").file("l/tmp/berth-was-here", "x"),
        ),
        ("a hard link out", Layer::new().hardlink("h", "../outside/secret")),
        ("a hard link through a link", Layer::new().symlink("l", "../outside").hardlink("h", "l/secret")),
        ("a hard link to nothing here", Layer::new().hardlink("h", "/etc/passwd")),
        ("a hard link to itself", Layer::new().file("h", "").hardlink("h", "h")),
        ("a hard link to a folder", Layer::new().dir("d").hardlink("h", "d")),
        ("a whiteout of the folder above", Layer::new().file("d/.wh...", "")),
        ("a whiteout of the folder itself", Layer::new().file("d/.wh..", "")),
        ("a whiteout of nothing", Layer::new().file(".wh.", "")),
        (
            "an opaque folder behind a link",
            Layer::new().symlink("l", "../outside/d").file("l/.wh..wh..opq", ""),
        ),
        ("a whiteout behind a link", Layer::new().symlink("l", "../outside").file("l/.wh.secret", "")),
        ("a file as a folder", Layer::new().file("f", "").file("f/x", "")),
        ("the root as a file", Layer::new().file("./", "").symlink(".", "/etc")),
        ("an unknown type", Layer::new().add(EntryType::new(b'V'), "v", "", 0o644, b"")),
        ("a NUL in a name", Layer::new().pax(&[("path", b"a\0b")]).file("x", "")),
    ];
    for (name, layer) in hostile {
        let error = Place::new().unpack(&layer.bytes()).expect_err(name);
        assert_eq!(error.code(), "image_invalid", "{name}: {error}");
    }
}

#[test]
fn what_replaces_a_link_does_not_write_through_it() {
    let place = Place::new();
    let layer = Layer::new()
        .symlink("l", "../outside/secret")
        .file("l", "mine")
        .symlink("d", "../outside/d")
        .dir("d")
        .file("d/x", "x");
    place.unpack(&layer.bytes()).unwrap();
    assert!(place.stat("l").is_file() && place.stat("d").is_dir());
}

#[test]
fn bombs_end_early() {
    let zeros = vec![0_u8; 40 << 20];
    let layer = Layer::new().add(EntryType::Regular, "zeros", "", 0o644, &zeros).bytes();
    let bomb = zstd::encode_all(layer.as_slice(), 1).unwrap();
    let limits = Limits { ratio_from: 1 << 20, ..Limits::default() };
    assert_eq!(Place::new().unpack_within(&bomb, &limits).unwrap_err().code(), "image_too_large");
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    assert_eq!(Place::new().unpack_within(&layer, &limits).unwrap_err().code(), "image_too_large");
    let limits = Limits { reserve: u64::MAX / 2, ..Limits::default() };
    assert_eq!(Place::new().unpack_within(&layer, &limits).unwrap_err().code(), "disk_full");
    let many = (0..20).fold(Layer::new(), |layer, at| layer.file(&format!("{at}"), "")).bytes();
    let limits = Limits { entries: 10, ..Limits::default() };
    assert_eq!(Place::new().unpack_within(&many, &limits).unwrap_err().code(), "image_too_large");
    let deep = Layer::new().pax(&[("path", "d/".repeat(300).as_bytes())]).dir("x").bytes();
    assert_eq!(Place::new().unpack(&deep).unwrap_err().code(), "image_invalid");
    let long = Layer::new().pax(&[("path", "d".repeat(5_000).as_bytes())]).dir("x").bytes();
    assert_eq!(Place::new().unpack(&long).unwrap_err().code(), "image_invalid");
    // A head of nine gigabytes that says nothing but its length.
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(9 << 30);
    header.set_cksum();
    assert_eq!(Place::new().unpack(header.as_bytes()).unwrap_err().code(), "image_too_large");
}

#[test]
fn a_pull_that_nobody_waits_for_ends() {
    let place = Place::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&Layer::new().file("a", "a").bytes()).unwrap();
    file.rewind().unwrap();
    let into = crate::beneath::open_root(&place.at("")).unwrap();
    let done = unpack(file, into.as_fd(), Ownership::Own, &Limits::default(), &AtomicBool::new(true));
    assert!(matches!(done, Err(ImageError::Cancelled)));
}

#[test]
fn as_root_ids_are_moved_into_a_range() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no id can be given away here");
        return;
    }
    let place = Place::new();
    let mut file = tempfile::tempfile().unwrap();
    let layer = Layer::new()
        .dir("d")
        .add(EntryType::Regular, "d/suid", "", 0o6755, b"x")
        .symlink("l", "/etc/passwd")
        .file(".wh.w", "")
        .file("i/x", "");
    file.write_all(&layer.pax(&[("uid", b"65536")]).file("foreign", "").bytes()).unwrap();
    file.rewind().unwrap();
    let into = crate::beneath::open_root(&place.at("")).unwrap();
    let passwd = fs::metadata("/etc/passwd").unwrap();
    let base = 1_000_000_000;
    let done =
        unpack(file, into.as_fd(), Ownership::Mapped { base }, &Limits::default(), &AtomicBool::new(false));
    assert!(done.unwrap_err().to_string().contains("above 65535"));
    for (path, uid, gid) in
        [("", 0, 0), ("d", 7, 8), ("d/suid", 7, 8), ("l", 7, 8), ("w", 0, 0), ("i", 0, 0), ("i/x", 7, 8)]
    {
        let stat = place.stat(path);
        assert_eq!((stat.uid(), stat.gid()), (base + uid, base + gid), "{path}");
    }
    assert_eq!(place.stat("d/suid").permissions().mode() & 0o7777, 0o6755);
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), passwd.uid());
}

/// A step of a stranger who knows how we work.
#[derive(Debug, Clone)]
struct Step {
    kind: EntryType,
    path: String,
    link: String,
    mode: u32,
}

fn hostile_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec![
        "a",
        "b",
        "l",
        "..",
        ".",
        "",
        "outside",
        "secret",
        ".wh.a",
        ".wh.b",
        ".wh.l",
        ".wh..wh..opq",
        ".wh...",
        ".wh.",
        "proc",
        "self",
        "root",
    ]);
    let start = prop::sample::select(vec!["", "/", "./", "../"]);
    (start, prop::collection::vec(segment, 1..4))
        .prop_map(|(start, segments)| format!("{start}{}", segments.join("/")))
}

fn hostile_step() -> impl Strategy<Value = Step> {
    use EntryType as T;
    let kinds = vec![
        T::Regular,
        T::Directory,
        T::Symlink,
        T::Link,
        T::Char,
        T::Block,
        T::Fifo,
        T::GNUSparse,
        T::Continuous,
    ];
    let modes = vec![0o644, 0o755, 0, 0o7777, 0o4755];
    let links = prop_oneof![
        hostile_path(),
        prop::sample::select(vec![
            "../outside",
            "../outside/secret",
            "/",
            "..",
            "/proc/self/root",
            "/proc/self/cwd",
            "."
        ])
        .prop_map(str::to_owned),
    ];
    (prop::sample::select(kinds), hostile_path(), links, prop::sample::select(modes))
        .prop_map(|(kind, path, link, mode)| Step { kind, path, link, mode })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_sequence_of_entries_changes_anything_outside(steps in prop::collection::vec(hostile_step(), 1..12)) {
        let place = Place::new();
        let mut layer = Layer::new();
        for Step { kind, path, link, mode } in &steps {
            let content: &[u8] = if *kind == EntryType::Regular { b"owned" } else { b"" };
            layer = layer.add(*kind, path, link, *mode, content);
        }
        // Compared with before within; nothing that was laid out may be a device with a number, either.
        drop(place.unpack(&layer.bytes()));
        let mut todo = vec![place.at("")];
        while let Some(at) = todo.pop() {
            let stat = fs::symlink_metadata(&at).unwrap();
            prop_assert!(!stat.file_type().is_block_device());
            prop_assert!(!stat.file_type().is_char_device() || stat.rdev() == 0);
            if stat.is_dir() {
                fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
                todo.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    #[test]
    fn no_bytes_are_a_panic_and_none_reach_outside(
        start in prop::collection::vec(any::<u8>(), 0..1_500),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        drop(Place::new().unpack(&start));
        let mut bytes = Layer::new().symlink("l", "../outside").pax(&[("path", b"some/where")]).file("a/b", "content").bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        drop(Place::new().unpack(&bytes));
    }
}
