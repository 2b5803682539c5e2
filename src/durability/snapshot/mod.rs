//! Strategies `snapshot` and `changelog+snapshot`: state in a repository of immutable objects (design §6).
//!
//! A task's state is a base snapshot, the files of its database as of one epoch, and in `snapshot` a chain of increments after it. Nothing here
//! does any input or output: formats, names, and what follows from what was read.

mod chain;
mod error;
mod hash;
mod manifest;
mod names;
mod pack;
mod reference;
mod retention;
mod spill;
#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainLimits};
pub use error::FormatError;
pub(super) use error::{check_format, damaged_object};
pub use hash::{ContentHash, ContentHasher};
pub use manifest::{Manifest, Retained, StoredFile};
pub use names::{
    Attempt, PACKS_FOLDER, PackId, SnapshotId, WriterName, files_folder, manifests_folder, packs_folder, task_folder,
};
pub use pack::{End, FOOTER_GUESS_BYTES, Footer, MAX_LINKS, PackedTask, TaskIncrement, pack, read_end};
pub use reference::{IncrementRef, Place, SpillId, StateRef};
pub use retention::{Retention, Superseded, superseded};
pub use spill::{
    CHUNK_BYTES, RECORD_MAX_BYTES, SpillAssembly, SpillKey, SpilledIncrement, spill_partition, spill_topic,
    spill_topic_spec,
};
