//! What can be wrong with the directory of an embedded log.

use std::path::{Path, PathBuf};

use crate::errors::Coded;

/// Why a directory cannot be used as a log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has the log open.
    #[error("the log in {dir} is open in another process; wait for its end, or use another directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something that is no embedded log.
    #[error(
        "{dir} holds {found}, which is nothing of an embedded log; use an empty directory, or one that is not there yet"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// A file in it.
        found: String,
    },
    /// A file does not hold what was written.
    #[error(
        "{file} is damaged at offset {offset}: {reason}; bring a copy back, or delete the directory and begin anew"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Offset of the damage in bytes.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by another version.
    #[error("{file} is of format {found} and this version reads format {known}; use the version that wrote it")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// The system refuses.
    #[error("{file}: {reason}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
}

impl DirectoryError {
    pub(super) fn io(file: &Path, error: &std::io::Error) -> Self {
        DirectoryError::Io {
            file: file.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(super) fn damaged(file: &Path, offset: u64, reason: &str) -> Self {
        DirectoryError::Damaged {
            file: file.to_owned(),
            offset,
            reason: reason.to_owned(),
        }
    }
}

impl Coded for DirectoryError {
    fn code(&self) -> &'static str {
        match self {
            DirectoryError::InUse { .. } => "TG1021",
            DirectoryError::Foreign { .. } => "TG1022",
            DirectoryError::Damaged { .. } => "TG1023",
            DirectoryError::Version { .. } => "TG1024",
            DirectoryError::Io { .. } => "TG1025",
        }
    }
}
