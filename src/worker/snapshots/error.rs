//! Why something in the repository could not be written or read.

use crate::blob::BlobError;
use crate::durability::snapshot::FormatError;
use crate::errors::Coded;
use crate::ids::TaskId;
use crate::log::LogError;
use crate::state::StateError;

use super::super::error::WorkerError;
use super::super::opening::NotOpened;

/// Why a step on the repository came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An object is not what it should be.
    #[error(transparent)]
    Object(#[from] FormatError),
    /// The log failed, where an increment was spilled to.
    #[error("a spilled increment cannot be read: {0}")]
    Spill(#[from] LogError),
    /// Whoever asks does not read the log, and the increment is there.
    #[error(
        "increment {increment} of task {task} is not in the repository: it was spilled to Kafka while the object store was away; wait for the next base snapshot, which holds it, or take an earlier epoch"
    )]
    Spilled {
        /// The task.
        task: TaskId,
        /// The increment.
        increment: String,
    },
    /// Local state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// What was read back is not what was written.
    #[error("the store gave back other bytes of {object} than were written; it is written again under another name")]
    NotAsWritten {
        /// The object.
        object: String,
    },
    /// An attempt took so long that what it has written may have been deleted as nobody's.
    #[error(
        "an attempt to write a snapshot took longer than half of snapshot.grace ({grace_ms} ms); it is given up, raise snapshot.grace or the bandwidth"
    )]
    TookTooLong {
        /// The grace in milliseconds.
        grace_ms: u64,
    },
    /// The log does not say what has to be known.
    #[error(transparent)]
    Log(LogError),
    /// Nobody wants it any more.
    #[error("it is not wanted any more")]
    Cancelled,
}

impl SnapshotError {
    /// Whether the same step may succeed later.
    pub(in crate::worker) fn is_passing(&self) -> bool {
        match self {
            SnapshotError::Blob(error) => error.is_passing(),
            SnapshotError::Spill(error) => matches!(error, LogError::Unreachable { .. } | LogError::TimedOut { .. }),
            SnapshotError::NotAsWritten { .. } => true,
            _ => false,
        }
    }

    /// What it means to a task that is being opened.
    pub(in crate::worker) fn on_opening(self, task: TaskId) -> NotOpened {
        match self {
            passing if passing.is_passing() => NotOpened::Waits(passing),
            source => NotOpened::Refused(WorkerError::Snapshot { task, source }),
        }
    }

    /// Whether an object is missing or wrong, so that another one may serve.
    pub(in crate::worker) fn is_damage(&self) -> bool {
        match self {
            SnapshotError::Blob(BlobError::Missing { .. }) | SnapshotError::State(StateError::Corrupt { .. }) => true,
            SnapshotError::Spill(error) => {
                matches!(error, LogError::OffsetOutOfRange { .. } | LogError::UnknownTopic { .. })
            }
            // What a later version wrote is whole, and an older one must not go by it.
            SnapshotError::Object(error) => !matches!(error, FormatError::Newer { .. }),
            _ => false,
        }
    }
}

impl Coded for SnapshotError {
    fn code(&self) -> &'static str {
        match self {
            SnapshotError::Blob(error) => error.code(),
            SnapshotError::Object(error) => error.code(),
            SnapshotError::Spill(error) => error.code(),
            SnapshotError::Spilled { .. } => "TG4014",
            SnapshotError::State(error) => error.code(),
            SnapshotError::NotAsWritten { .. } => "TG4011",
            SnapshotError::TookTooLong { .. } => "TG4012",
            SnapshotError::Log(error) => error.code(),
            SnapshotError::Cancelled => "TG4013",
        }
    }
}
