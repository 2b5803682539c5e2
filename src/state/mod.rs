//! The state port: one keyed database per task, and the layers in front of it.
//!
//! A backend holds a committed prefix only (invariant I9). What an epoch writes lives in an [`Overlay`] until
//! its transaction has committed; [`TaskState`] is the view of both that operators see.

use std::path::PathBuf;

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
    /// Any other failure of the disk or the database.
    #[error("state in {path} cannot be {operation}: {reason}")]
    Io {
        /// The task's directory.
        path: PathBuf,
        /// What was tried: opened, read, written.
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

    /// Bytes on disk and in memory, for metrics.
    fn size_bytes(&self) -> u64;
}

mod cache;
mod cache_index;
#[cfg(test)]
pub(crate) mod conformance;
mod directory;
pub(crate) mod entries;
mod key_hash;
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
pub use memory::MemoryBackend;
pub use meta::StateMeta;
pub use overlay::Overlay;
pub use rocks::{RocksBackend, RocksShared};
pub use task_state::{StateCounts, TaskState};
