//! A copy of a database: hard links to its data files, in a directory beside it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rocksdb::DB;
use rocksdb::checkpoint;

use super::failure::{directory_error, state_error};
use super::{META_KEY, METADATA, RocksBackend, meta_error};
use crate::state::{Checkpoint, StateBackend, StateError, StateFile, StateMeta, StateResult, beside};

/// A copy of a database on disk. Its data files are those of the database as long as that has them.
#[derive(Debug)]
pub(super) struct RocksCheckpoint {
    directory: Directory,
    meta: StateMeta,
    files: Vec<StateFile>,
}

impl RocksCheckpoint {
    pub(super) fn of(backend: &RocksBackend) -> StateResult<Self> {
        if backend.meta()?.is_none() {
            return Err(StateError::nothing_to_copy(&backend.path));
        }
        // The checkpoint flushes too, and deletes no file meanwhile; after this there is little left to flush.
        backend.flush()?;
        let directory = Directory(beside::new_checkpoint(&backend.path));
        checkpoint::Checkpoint::new(&backend.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&directory.0))
            .map_err(|error| backend.error("copied", &error))?;
        let files = files_of(&directory.0)?;
        let meta = meta_of(&directory.0)?.ok_or_else(|| StateError::nothing_to_copy(&backend.path))?;
        Ok(Self { directory, meta, files })
    }
}

impl Checkpoint for RocksCheckpoint {
    fn kind(&self) -> &'static str {
        "rocksdb"
    }

    fn meta(&self) -> &StateMeta {
        &self.meta
    }

    fn files(&self) -> &[StateFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, into: &mut [u8]) -> StateResult<()> {
        let name = self.files.get(file).map_or("", |file| &file.name);
        read_at(&self.directory.0, name, offset, into)
    }
}

/// Fills `into` from a file of a directory.
pub(super) fn read_at(directory: &Path, name: &str, offset: u64, into: &mut [u8]) -> StateResult<()> {
    let read = File::open(directory.join(name)).and_then(|file| file.read_exact_at(into, offset));
    read.map_err(|error| directory_error(directory, "read", &error))
}

/// Removed when it is dropped, also half made.
#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let half_made = beside::half_made(&self.0);
        for path in [&self.0, &half_made] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a copy of a database stays until the next start");
                }
                _ => {}
            }
        }
    }
}

/// What a file is to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Entries, never written again.
    Data,
    /// Written on by the database.
    Changing,
    /// What was written since the last flush; matters if there is something in it.
    Log,
}

/// What the file of this name is to a copy; `None` if it is no part of one.
pub(super) fn role(name: &str) -> Option<Role> {
    let is_numbered = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((number, suffix)) = name.split_once('.') {
        return match suffix {
            "sst" | "blob" if is_numbered(number) => Some(Role::Data),
            "log" if is_numbered(number) => Some(Role::Log),
            _ => None,
        };
    }
    let number = name.strip_prefix("MANIFEST-").or(name.strip_prefix("OPTIONS-"));
    (name == "CURRENT" || number.is_some_and(is_numbered)).then_some(Role::Changing)
}

/// The files of a copy, in order of their names.
fn files_of(directory: &Path) -> StateResult<Vec<StateFile>> {
    let failed = |error: &std::io::Error| directory_error(directory, "copied", error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let bytes = entry.metadata().map_err(|error| failed(&error))?.len();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        match role(&name) {
            None => {}
            Some(Role::Log) if bytes == 0 => {}
            Some(role) => files.push(StateFile {
                immutable: role == Role::Data,
                name,
                bytes,
            }),
        }
    }
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// What the data of a copy is. A copy that was made beside applies holds some that came after its last flush, in a log.
fn meta_of(directory: &Path) -> StateResult<Option<StateMeta>> {
    let failed = |error| state_error(directory, "copied", &error);
    let options = rocksdb::Options::default();
    let db = DB::open_cf_for_read_only(&options, directory, [METADATA], false).map_err(failed)?;
    let stored = db.get(META_KEY).map_err(failed)?;
    let meta = stored.map(|bytes| StateMeta::decode(&bytes)).transpose();
    meta.map_err(|error| meta_error(directory, &error))
}
