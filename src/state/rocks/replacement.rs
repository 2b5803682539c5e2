//! How a database takes another one's place: whatever is cut off, the former is there, or the new one.
//!
//! A database is put together in `<task>.installing`. Once it is complete and durable, that directory becomes
//! `<task>.installed`; from here on the new one is what counts. Then the former is destroyed, and the new one gets the task's
//! name. Whoever next opens the database does what was left of this.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::RocksBackend;
use super::failure::directory_error;
use crate::state::{StateError, StateResult, beside};

/// Locked by whoever works in such a directory. Other processes are kept out by the lock of the instance's directory.
pub(super) const LOCK: &str = "installing.lock";

/// Locks a directory beside `database`; `None` if there is none.
///
/// # Errors
/// [`StateError::Locked`] while somebody else works in it, [`StateError::Io`].
pub(super) fn lock(database: &Path, directory: &Path) -> StateResult<Option<File>> {
    let failed = |error: &io::Error| directory_error(directory, "locked", error);
    let mut options = File::options();
    let file = match options
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK))
    {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let path = database.to_owned();
            return Err(StateError::Locked { path });
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
    }
    // Whoever had it until now may have removed the directory.
    let links = file.metadata().map_err(|error| failed(&error))?.nlink();
    Ok((links > 0).then_some(file))
}

/// Puts the complete database in `<task>.installing` in the place of `database`.
///
/// # Errors
/// [`StateError::Locked`] while the former is open; then nothing has changed. [`StateError::Foreign`], [`StateError::Io`].
pub(super) fn replace(database: &Path, lock: File) -> StateResult<()> {
    let (installing, installed) = (beside::installing(database), beside::installed(database));
    rename(database, &installing, &installed)?;
    match RocksBackend::destroy_database(database) {
        Ok(()) => take_the_place(database, lock),
        Err(refused @ (StateError::Locked { .. } | StateError::Foreign { .. })) => {
            rename(database, &installed, &installing)?;
            Err(refused)
        }
        Err(error) => Err(error),
    }
}

/// Completes a replacement that was cut off.
///
/// # Errors
/// [`StateError::Locked`] while it goes on, or the former database is open; [`StateError::Foreign`], [`StateError::Io`].
pub(super) fn complete(database: &Path) -> StateResult<()> {
    match lock(database, &beside::installed(database))? {
        None => Ok(()),
        Some(lock) => {
            RocksBackend::destroy_database(database)?;
            take_the_place(database, lock)
        }
    }
}

fn take_the_place(database: &Path, lock: File) -> StateResult<()> {
    rename(database, &beside::installed(database), database)?;
    let removed = fs::remove_file(database.join(LOCK));
    drop(lock);
    removed.map_err(|error| directory_error(database, "written", &error))
}

/// Removes a database that is not complete, unless somebody works on it.
///
/// # Errors
/// [`StateError::Io`].
pub(super) fn discard_idle(database: &Path) -> StateResult<()> {
    let installing = beside::installing(database);
    match lock(database, &installing) {
        Ok(Some(_lock)) => remove(&installing),
        Ok(None) | Err(StateError::Locked { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does `first`, then removes what lies beside `database` to take its place.
///
/// # Errors
/// [`StateError::Locked`] while somebody works on it; then `first` is not done. Those of `first`, [`StateError::Io`].
pub(super) fn discard_with(database: &Path, first: impl FnOnce() -> StateResult<()>) -> StateResult<()> {
    let (installing, installed) = (beside::installing(database), beside::installed(database));
    let begun = lock(database, &installing)?;
    let complete = lock(database, &installed)?;
    first()?;
    if complete.is_some() {
        remove(&installed)?;
    }
    if begun.is_some() {
        remove(&installing)?;
    }
    Ok(())
}

fn remove(directory: &Path) -> StateResult<()> {
    fs::remove_dir_all(directory).map_err(|error| directory_error(directory, "removed", &error))
}

/// Renames a directory beside `database`, durably.
fn rename(database: &Path, from: &Path, to: &Path) -> StateResult<()> {
    let renamed = fs::rename(from, to).and_then(|()| {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    renamed.map_err(|error| directory_error(database, "written", &error))
}
