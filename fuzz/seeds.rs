//! The files that a fuzz target begins from, for the ordinary tests of the crate that it is about.

/// Gives each of the files in `seeds/NAME` to `target`.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    // Of the crate whose test this is a part of: all of them lie as deep.
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let files = std::fs::read_dir(seeds).unwrap().map(|file| file.unwrap().path());
    let count = files.map(|file| target(&std::fs::read(file).unwrap())).count();
    assert!(count > 0, "{name}");
}
