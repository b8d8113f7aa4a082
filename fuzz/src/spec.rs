//! What people write: a manifest is refused with its mistakes, or written as it was read.

use berth_spec::Manifest;

/// A berth.toml.
pub fn manifest(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Manifest::parse(text) {
        Ok(manifest) => {
            let written = manifest.write(&[], &[]);
            assert_eq!(Manifest::parse(&written), Ok(manifest), "{written}");
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}
