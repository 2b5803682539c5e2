//! The state port: one keyed database per task, and the layers in front of it.
//!
//! A backend holds a committed prefix only (invariant I9). What an epoch writes lives in an [`Overlay`] until
//! its transaction has committed; [`TaskState`] is the view of both that operators see.

use std::path::{Path, PathBuf};

use crate::errors::Coded;
use crate::ids::StoreId;

/// What went wrong with local state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds the directory.
    #[error("state directory {path} is locked by another process; stop it, or give this instance its own state.dir")]
    Locked {
        /// The task's directory.
        path: PathBuf,
    },
    /// The directory belongs to another application or format.
    #[error("state directory {path} is foreign: {reason}; point state.dir elsewhere, or remove the directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A file fails its checksum or is missing.
    #[error("state in {path} is corrupt: {reason}; remove the directory of this task and it is restored from Kafka")]
    Corrupt {
        /// The task's directory.
        path: PathBuf,
        /// What the database says.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left on the disk of {path}; free some, the instance goes on from the committed cut")]
    DiskFull {
        /// The task's directory.
        path: PathBuf,
    },
    /// A read needs a file that is not here yet, and it did not come in time.
    #[error(
        "state in {path} still lacks {file} after {waited_ms} ms: {reason}; the epoch is redone, and the restore goes on as soon as the object store answers"
    )]
    Lacking {
        /// The task's directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// How long the read has waited, in milliseconds.
        waited_ms: u64,
        /// What was seen last.
        reason: String,
    },
    /// A file that the database lacks cannot be had: the database will never be complete.
    #[error(
        "state in {path} lacks {file}, which cannot be had: {reason}; the task is restored anew, from another snapshot where this one is damaged"
    )]
    Unobtainable {
        /// The task's directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database lacks files, so it is opened or copied only by whoever fetches them.
    #[error(
        "state in {path} lacks {files} files: its lazy restore has not ended; start the instance, which goes on with it"
    )]
    Incomplete {
        /// The task's directory.
        path: PathBuf,
        /// How many.
        files: usize,
        /// Whether one of them cannot be had.
        is_given_up: bool,
    },
    /// Any other failure of the disk or the database.
    #[error("state in {path} cannot be {operation}: {reason}")]
    Io {
        /// The task's directory.
        path: PathBuf,
        /// What was tried: opened, read, written, copied.
        operation: &'static str,
        /// What the database says.
        reason: String,
    },
}

impl Coded for StateError {
    fn code(&self) -> &'static str {
        match self {
            StateError::Locked { .. } => "TG1101",
            StateError::Foreign { .. } => "TG1102",
            StateError::Corrupt { .. } => "TG1103",
            StateError::DiskFull { .. } => "TG1104",
            StateError::Io { .. } => "TG1105",
            StateError::Lacking { .. } => "TG3014",
            StateError::Unobtainable { .. } => "TG3015",
            StateError::Incomplete { .. } => "TG3016",
        }
    }
}

impl StateError {
    /// Whether going back to the committed cut and trying again may help: something of the state is not here yet.
    pub fn is_about_lacking_files(&self) -> bool {
        matches!(self, StateError::Lacking { .. } | StateError::Unobtainable { .. })
    }

    /// The error of a copy of a database to which nothing was ever applied.
    fn nothing_to_copy(path: &Path) -> Self {
        StateError::Io {
            path: path.to_owned(),
            operation: "copied",
            reason: "nothing was ever applied to it".into(),
        }
    }

    /// The error of a database that was to be put together of files of which this one is not there, or has another size.
    fn incomplete(path: &Path, file: &StateFile) -> Self {
        StateError::Corrupt {
            path: path.to_owned(),
            reason: format!("its file {:?} is not there with {} bytes", file.name, file.bytes),
        }
    }
}

/// Result of a call on state.
pub type StateResult<T> = Result<T, StateError>;

/// How a store is used; decides its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Name, unique within the topology; part of the changelog topic's name.
    pub name: String,
    /// Whether operators scan ranges of it (then overlays keep its keys sortable).
    pub ordered: bool,
    /// Ids of the key and value codec, part of the plan's fingerprint.
    pub codecs: String,
}

/// The entries of one epoch of one task, sorted by store and key; `None` is a deletion.
pub trait SortedIncrement: Send + Sync {
    /// Calls `visit(store, key, value)` for each entry in order of store, then key.
    #[allow(clippy::type_complexity)] // An alias would hide what the arguments are.
    fn for_each(&self, visit: &mut dyn FnMut(StoreId, &[u8], Option<&[u8]>));
}

/// A file of a task's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Its name within the database; unique there, and the same file keeps it.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it never changes once it is there, so that later checkpoints may have the same one.
    pub immutable: bool,
}

/// A frozen copy of a task's database, made of files. It goes when it is dropped.
pub trait Checkpoint: Send + Sync {
    /// What the data is.
    fn meta(&self) -> &StateMeta;

    /// What the files are: the kind of database that can be put together of them.
    fn kind(&self) -> &'static str;

    /// All files, in order of their names.
    fn files(&self) -> &[StateFile];

    /// Fills `into` from `offset` of the file with this index.
    ///
    /// # Errors
    /// [`StateError::Io`], also beyond the end of the file.
    fn read(&self, file: usize, offset: u64, into: &mut [u8]) -> StateResult<()>;
}

/// A task's database that is being put together from the files of a checkpoint; one of each task at a time. What an attempt
/// that was cut off has left is there, and so are the immutable files of the database that the task has now; whoever
/// installs compares and keeps what is right. Dropped without an end, it leaves its files to the next attempt. They go when the
/// task is cleared, or when a database of it that holds something is opened.
pub trait Installation: Send {
    /// The size of a file that is there already.
    ///
    /// # Errors
    /// [`StateError::Io`].
    fn present(&self, name: &str) -> StateResult<Option<u64>>;

    /// Fills `into` from `offset` of a file that is there.
    ///
    /// # Errors
    /// [`StateError::Io`], also beyond the end of the file.
    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> StateResult<()>;

    /// Writes a part of a file; what is there beyond it stays.
    ///
    /// # Errors
    /// [`StateError::DiskFull`], [`StateError::Io`].
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> StateResult<()>;

    /// Removes a file that turned out to be wrong.
    ///
    /// # Errors
    /// [`StateError::Io`].
    fn remove(&mut self, name: &str) -> StateResult<()>;

    /// Replaces the task's database by one of exactly these files, and opens it. A crash leaves the former database or the new
    /// one, never a mixture.
    ///
    /// # Errors
    /// [`StateError::Locked`] while the former database is open, [`StateError::Corrupt`] where a file is missing, has another size, or
    /// is noticed to be damaged, and as opening a database has them. The former database and the files stay then.
    fn finish(self: Box<Self>, files: &[StateFile]) -> StateResult<std::sync::Arc<dyn StateBackend>>;

    /// Whether [`Installation::finish_lacking`] is possible.
    fn can_lack_files(&self) -> bool {
        false
    }

    /// As [`Installation::finish`], with some of the files still `lacking`: the database is used while they come.
    ///
    /// # Errors
    /// As [`Installation::finish`]; [`StateError::Io`] where a database of this kind needs all of its files.
    fn finish_lacking(
        self: Box<Self>,
        _files: &[StateFile],
        lacking: &[LackingFile],
        _fetching: Fetching,
    ) -> StateResult<std::sync::Arc<dyn StateBackend>> {
        Err(StateError::Io {
            path: PathBuf::new(),
            operation: "opened",
            reason: format!(
                "it lacks {} files, and databases of this kind need all of them",
                lacking.len()
            ),
        })
    }
}

/// One task's database. Reads come from the worker while another thread applies.
pub trait StateBackend: Send + Sync {
    /// Copies the value of `key` to `out` (cleared first); false if there is none.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::Io`].
    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> StateResult<bool>;

    /// Calls `visit` for each entry with `from <= key < to` in byte order (`to` empty: no upper bound), until it answers false.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::Io`].
    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()>;

    /// Writes an increment and the metadata after it in one atomic batch. A process crash afterwards loses
    /// nothing; a machine crash may lose a suffix of whole batches.
    ///
    /// # Errors
    /// [`StateError::DiskFull`], [`StateError::Corrupt`], [`StateError::Io`]. Nothing is written then.
    fn apply(&self, increment: &dyn SortedIncrement, meta: &StateMeta) -> StateResult<()>;

    /// What the data on disk is; `None` if nothing was ever applied.
    ///
    /// # Errors
    /// [`StateError::Foreign`] for an unknown format, [`StateError::Corrupt`], [`StateError::Io`].
    fn meta(&self) -> StateResult<Option<StateMeta>>;

    /// Freezes what the database holds now. Reads go on meanwhile, and applies do or wait. What it holds is whole epochs.
    ///
    /// # Errors
    /// [`StateError::DiskFull`], [`StateError::Corrupt`], [`StateError::Io`]; the last also where nothing was ever applied.
    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>>;

    /// Bytes on disk and in memory, for metrics.
    fn size_bytes(&self) -> u64;

    /// What it lacks; reads wait for what they need of it. Most databases never lack anything.
    fn lacking(&self) -> Lacking {
        Lacking::default()
    }

    /// Fetches some of the files that it lacks, those first that reads are most likely to need, and answers what it lacks then. **Blocks.**
    ///
    /// # Errors
    /// [`StateError::Lacking`] where they may be had later, [`StateError::Unobtainable`] where not; those of the disk.
    fn fetch_some(&self) -> StateResult<Lacking> {
        Ok(Lacking::default())
    }

    /// Whether a file that it lacks cannot be had: then it is of no use any more.
    fn is_given_up(&self) -> bool {
        false
    }
}

mod beside;
mod cache;
mod cache_index;
#[cfg(test)]
pub(crate) mod conformance;
mod directory;
pub(crate) mod entries;
pub(crate) mod entry_copies;
pub(crate) mod entry_files;
#[cfg(test)]
mod entry_files_tests;
mod key_hash;
mod lacking;
mod memory;
mod merge;
mod meta;
mod ordered_index;
mod overlay;
mod rocks;
mod task_state;
#[cfg(test)]
mod task_state_tests;

pub use directory::StateDirectory;
pub use lacking::{Fetching, FileSource, Lacking, LackingFile, NotFetched, TakePiece};
pub use memory::MemoryBackend;
pub use meta::StateMeta;
pub use overlay::Overlay;
pub use rocks::{RocksBackend, RocksShared};
pub use task_state::{Rewritten, StateCounts, TaskState};
