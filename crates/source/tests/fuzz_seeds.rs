//! The fuzz targets of this crate, with the files that they begin from.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/src/source.rs"]
pub mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let files = std::fs::read_dir(seeds).unwrap().map(|file| file.unwrap().path());
    let count = files.map(|file| target(&std::fs::read(file).unwrap())).count();
    assert!(count > 0, "{name}");
}

#[test]
fn the_seeds_hold() {
    replay("compose", targets::compose);
}
