//! From what RocksDB says to what a caller can act on.

use std::path::Path;

use rocksdb::{Error, ErrorKind};

use crate::state::StateError;

/// Names the failure of `operation` on the database in `path`.
///
/// RocksDB's C interface gives a text only, so sub-codes are recognised by their fixed wording.
pub(super) fn state_error(path: &Path, operation: &'static str, error: &Error) -> StateError {
    let path = path.to_owned();
    let text: &str = error.as_ref();
    let says = |what: &str| text.contains(what);
    if says("No space left on device") {
        return StateError::DiskFull { path };
    }
    if says("lock hold by current process") || says("While lock file") {
        return StateError::Locked { path };
    }
    let reason = text.to_owned();
    match error.kind() {
        // The layout was checked before, so this database has lost or gained a column family since.
        ErrorKind::InvalidArgument if says("olumn famil") => StateError::Corrupt { path, reason },
        ErrorKind::Corruption => StateError::Corrupt { path, reason },
        ErrorKind::IOError if says("No such file or directory") => StateError::Corrupt { path, reason },
        _ => StateError::Io {
            path,
            operation,
            reason,
        },
    }
}

/// Names the failure of `operation` on the directory itself.
pub(super) fn directory_error(path: &Path, operation: &'static str, error: &std::io::Error) -> StateError {
    let path = path.to_owned();
    match error.kind() {
        std::io::ErrorKind::StorageFull => StateError::DiskFull { path },
        _ => StateError::Io {
            path,
            operation,
            reason: error.to_string(),
        },
    }
}
