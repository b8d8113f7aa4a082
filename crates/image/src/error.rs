//! Why there is no image, with a stable code each.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text names no image.
    #[error("{given:?} does not name an image: {why}")]
    Reference {
        /// The text, cut.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The registry has no such repository, tag, manifest or blob, or does not say so to us.
    #[error("{registry} has no {what}")]
    NotFound {
        /// The registry.
        registry: String,
        /// What it was asked for.
        what: String,
    },
    /// The registry wants to know who asks, and what we said did not do.
    #[error("{registry} refuses: {why}")]
    Denied {
        /// The registry.
        registry: String,
        /// What it said, or what is missing.
        why: String,
    },
    /// The registry cannot be reached, or breaks off.
    #[error("{registry} cannot be reached: {why}")]
    Unreachable {
        /// The registry, or where it sent us.
        registry: String,
        /// What went wrong.
        why: String,
    },
    /// What the registry gave is not what it has to be.
    #[error("the image is refused: {0}")]
    Invalid(String),
    /// It is larger than it may be.
    #[error("the image is refused: {0}")]
    TooLarge(String),
    /// There is none for this machine.
    #[error("there is no image for {wanted}, only for {offered}")]
    NoPlatform {
        /// What was looked for: `linux/amd64`.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// Nobody waits for it any more.
    #[error("the pull was cancelled")]
    Cancelled,
    /// The disk, or the quota on it, is full.
    #[error("the disk is full at {0:?}; nothing was left half done")]
    DiskFull(PathBuf),
    /// The store could not be read or written.
    #[error("{path:?} could not be {verb}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// The stable code of this error; each has a page.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "image_reference_invalid",
            Self::NotFound { .. } => "image_not_found",
            Self::Denied { .. } => "registry_denied",
            Self::Unreachable { .. } => "registry_unreachable",
            Self::Invalid(_) => "image_invalid",
            Self::TooLarge(_) => "image_too_large",
            Self::NoPlatform { .. } => "image_platform_missing",
            Self::Cancelled => "build_cancelled",
            Self::DiskFull(_) => "disk_full",
            Self::Io { .. } => "storage_failed",
        }
    }

    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }
}

/// Makes an error of what the system said about `path`, for `map_err`.
pub(crate) fn failed<E: Into<io::Error>>(path: &Path, verb: &'static str) -> impl Fn(E) -> ImageError {
    let path = path.to_owned();
    move |error| {
        let source = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull(path.clone()),
            _ => ImageError::Io { path: path.clone(), verb, source },
        }
    }
}

/// What a stranger wrote, fit for a message: cut, and without control characters.
pub(crate) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .take(200)
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let text = String::new;
        let errors = [
            ImageError::Reference { given: text(), why: "" },
            ImageError::NotFound { registry: text(), what: text() },
            ImageError::Denied { registry: text(), why: text() },
            ImageError::Unreachable { registry: text(), why: text() },
            ImageError::Invalid(text()),
            ImageError::TooLarge(text()),
            ImageError::NoPlatform { wanted: text(), offered: text() },
            ImageError::Cancelled,
            ImageError::DiskFull(PathBuf::new()),
            failed(Path::new("x"), "read")(io::Error::from_raw_os_error(5)),
        ];
        for error in errors {
            let page = pages.join(format!("{}.md", error.code()));
            assert!(page.try_exists().unwrap(), "{} has no page", error.code());
        }
    }

    #[test]
    fn a_strangers_words_move_no_cursor() {
        assert_eq!(shown(b"a\x1b[2Jb\xff"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
