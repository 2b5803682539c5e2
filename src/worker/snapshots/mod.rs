//! Writing and reading the snapshot repository, in steps that somebody else paces: each makes few calls on the store.

mod collect;
mod error;
mod install;
mod lazy;
mod persist;
mod read_ahead;
mod rebuild;
mod repository;
mod restore;
mod retire;
mod small_files;
mod spill;
mod spilled;
mod upload;
#[cfg(test)]
mod upload_tests;

pub use collect::{Collect, CollectJob, Collection};
pub use error::SnapshotError;
pub(super) use lazy::RepositoryFiles;
pub use lazy::RestoreMode;
pub(super) use persist::{Persist, PersistJob, PersistTask, Persisted};
pub use rebuild::rebuild;
pub use repository::{Repository, SnapshotSettings};
pub(super) use restore::RepositoryRestore;
pub(super) use retire::{Retire, RetireJob};
pub(super) use spill::{Probe, Probed, Spill, SpillJob, Spilled};
pub(super) use upload::{FileHashes, KnownIncrements, Outdated, SnapshotJob, Snapshotted, Upload};
