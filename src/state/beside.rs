//! What may lie beside a task's database, named after it: copies of it, and one that is to take its place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::TaskId;

const CHECKPOINT: &str = ".checkpoint-";

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    database.with_file_name(name)
}

/// Where a database is put together.
pub(super) fn installing(database: &Path) -> PathBuf {
    beside(database, ".installing")
}

/// Where a database lies that is complete and durable, and replaces the one in `database` whatever happens.
pub(super) fn installed(database: &Path) -> PathBuf {
    beside(database, ".installed")
}

/// A name for a copy that no other copy has: a copy may outlive its database, and the next one of the same task.
pub(super) fn new_checkpoint(database: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = beside(database, &format!("{CHECKPOINT}{number}"));
        if !path.exists() {
            return path;
        }
    }
}

/// Where RocksDB makes a copy before it gives it its name.
pub(super) fn half_made(checkpoint: &Path) -> PathBuf {
    beside(checkpoint, ".tmp")
}

/// Removes the copies in an instance's directory that processes have left which did not end in order.
///
/// # Errors
/// If the directory cannot be read, or a copy not be removed.
pub(super) fn remove_checkpoints(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let task = name.to_str().and_then(|name| name.split_once(CHECKPOINT));
        if task.is_some_and(|(task, _)| task.parse::<TaskId>().is_ok()) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
