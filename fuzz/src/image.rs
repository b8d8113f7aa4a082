//! What registries send: a layer is laid out within its folder, or refused, whatever is in it.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use berth_image::unpack::unpack;
use berth_image::{Limits, Ownership};

const BLOCK: usize = 512;
const BESIDE: &[u8] = b"beside the layer";

/// An archive as it is.
pub fn layer(input: &[u8]) {
    lay(input);
}

/// An archive whose entries are said in short, so that a change of the input is one of a path, a link or a mode, and never of a checksum.
pub fn entries(input: &[u8]) {
    let (mut archive, mut rest) = (Vec::new(), input);
    while let Some(entry) = entry(&mut rest) {
        archive.extend(entry);
    }
    archive.extend([0; 2 * BLOCK]);
    lay(&archive);
}

/// Kind, mode, and three texts with their lengths: the path, where it links to, and the content.
fn entry(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (head, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    let [path, link, content] = [text(rest), text(rest), text(rest)];
    let mut header = [0; BLOCK];
    let mut put = |at: usize, longest: usize, bytes: &[u8]| {
        let bytes = bytes.get(..longest).unwrap_or(bytes);
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, 100, path);
    put(100, 8, format!("{:07o}", u32::from(head[1]) << 4).as_bytes());
    put(108, 8, b"0000000");
    put(116, 8, b"0000000");
    put(124, 12, format!("{:011o}", content.len()).as_bytes());
    put(136, 12, b"00000000000");
    put(148, 8, b"        ");
    put(156, 1, &head[..1]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; content.len().next_multiple_of(BLOCK) - content.len()];
    Some([&header, content, &padding].concat())
}

fn text<'i>(rest: &mut &'i [u8]) -> &'i [u8] {
    let Some((length, after)) = rest.split_first() else { return &[] };
    let (text, after) = after.split_at(usize::from(*length).min(after.len()));
    *rest = after;
    text
}

fn lay(archive: &[u8]) {
    let place = tempfile::tempdir().expect("a folder");
    let (into, beside) = (place.path().join("layer"), place.path().join("beside"));
    fs::create_dir(&into).expect("our folder");
    fs::write(&beside, BESIDE).expect("our folder");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(archive).and_then(|()| file.rewind()).expect("our file");
    let limits = Limits {
        entries: 100,
        bytes: 1 << 20,
        ratio: 200,
        ratio_from: 1 << 20,
        reserve: 0,
        ..Limits::default()
    };
    let folder = File::open(&into).expect("our folder");
    let outcome = unpack(file, folder.as_fd(), Ownership::Own, &limits, &AtomicBool::new(false));
    if let Ok(unpacked) = outcome {
        assert!(unpacked.entries <= limits.entries && unpacked.bytes <= limits.bytes, "{unpacked:?}");
    }
    let mut names: Vec<_> =
        fs::read_dir(place.path()).expect("our folder").flatten().map(|it| it.file_name()).collect();
    names.sort();
    assert_eq!(names, ["beside", "layer"], "something lies outside");
    assert_eq!(fs::read(&beside).expect("it is there"), BESIDE, "something outside was written to");
    assert_eq!(fs::metadata(&beside).expect("it is there").nlink(), 1, "something outside was linked to");
    assert!(!has_device(&into), "a device was made");
}

/// Whether there is anything that leads to a device of the machine. One that stands for what a layer takes away is no such thing: its number is nought.
fn has_device(folder: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let Ok(about) = entry.metadata() else { return false };
        let kind = about.file_type();
        kind.is_block_device()
            || (kind.is_char_device() && about.rdev() != 0)
            || (kind.is_dir() && has_device(&entry.path()))
    })
}
