//! Why an archive is not written, or not taken for one.

use std::io;

/// Why an archive is not written, or not taken for one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It could not be read or written.
    #[error("the backup could not be read or written")]
    Io(#[from] io::Error),
    /// It ends before its end.
    #[error("the backup ends too early, within {at}: it was cut short")]
    Short {
        /// The file in it.
        at: String,
    },
    /// It is something else.
    #[error("this is no backup of a Berth platform: {0}")]
    Foreign(String),
    /// A newer version wrote it.
    #[error(
        "the backup has format {found}, this version reads up to {}: use the version that wrote it, or a newer one",
        crate::Head::FORMAT
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It holds what no backup holds: somebody made it up, or changed it.
    #[error("the backup holds {name:?}, which {problem}")]
    Hostile {
        /// The name, cut to 200 characters.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something in it is not as it was written.
    #[error("{what} is damaged: its hash is another")]
    Damaged {
        /// The section or file.
        what: String,
    },
    /// A file changed while it was written.
    #[error("{path:?} changed while it was saved")]
    Changed {
        /// The file.
        path: String,
    },
}

impl BackupError {
    pub(crate) fn hostile(name: &str, problem: &'static str) -> Self {
        Self::Hostile { name: name.chars().take(200).collect(), problem }
    }
}
