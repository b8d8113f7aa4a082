//! Writing so that a loss of power leaves the old file or the new one, never half of either.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::HomeError;

/// Replaces `directory/name`: a new file, written and synced, renamed over the old one, then the directory is synced.
///
/// The new file has a fixed name, so that what a killed start left behind is overwritten and not gathered.
pub(crate) fn write_atomically(
    directory: &Path,
    name: &str,
    content: &[u8],
    mode: u32,
) -> Result<(), HomeError> {
    let path = directory.join(name);
    let new = directory.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // create_new: a link that someone put there is not followed.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_directory(directory)
    };
    write().map_err(|error| HomeError::io("write", &path, error))
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
