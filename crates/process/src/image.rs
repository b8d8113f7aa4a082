//! A program that lives in memory: written once, sealed, run from there.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

/// A program in a memory file that nobody can change any more, not even we. Clones share the file.
#[derive(Debug, Clone)]
pub struct SealedImage {
    file: Arc<File>,
}

impl SealedImage {
    /// Writes `program` to a memory file called `name` and seals it.
    ///
    /// # Errors
    /// When the kernel has no memory files that may be executed, or no memory.
    pub fn new(name: &str, program: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Since Linux 6.3 a machine may demand that a memory file says whether it will be executed.
        let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
            other => other?,
        };
        let mut file = File::from(file);
        file.write_all(program)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { file: Arc::new(file) })
    }

    /// A path to it that holds in this process and in one just forked from it. The kernel opens the program
    /// before it closes what is close-on-exec, so the new program does not inherit the file.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd()))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    #[test]
    fn a_sealed_image_cannot_be_changed() {
        let image = SealedImage::new("berth-test", b"program").unwrap();
        let mut file = &*image.file;
        file.rewind().unwrap();
        assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(file.set_len(0).is_err() && file.set_len(100).is_err());
    }
}
