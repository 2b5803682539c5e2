//! Why a tool on a repository could not do what it was asked to, or what it has to say in the end.

use crate::blob::BlobError;
use crate::durability::PointerError;
use crate::durability::snapshot::FormatError;
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::log::LogError;
use crate::savepoint::SavepointError;
use crate::state::StateError;
use crate::worker::SnapshotError;

/// Why a tool on a repository could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The store, an object in it, or local state.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Kafka.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What the group has committed is no pointer.
    #[error(transparent)]
    Pointer(#[from] PointerError),
    /// The folder holds nothing.
    #[error(
        "there is no snapshot repository in {root}: nothing is there; check snapshot.url and application.id (or --url and --application), and that durability was not changelog"
    )]
    Nothing {
        /// The store and the folder in it.
        root: String,
    },
    /// What was asked for is not in the repository.
    #[error("{root} has no {what}; it has {there}")]
    Unknown {
        /// The store and the folder in it.
        root: String,
        /// What was asked for.
        what: String,
        /// What there is of the kind.
        there: String,
    },
    /// Objects are missing or damaged.
    #[error("there are findings in {root}: {count}, listed above; docs/tools.md says what to do about each kind")]
    Findings {
        /// The store and the folder in it.
        root: String,
        /// How many.
        count: usize,
    },
    /// The repository does not lead to the epoch that was asked for.
    #[error("the state of task {task} at epoch {epoch} cannot be put together: {reason}")]
    NoWay {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// Why, and which epochs can be had.
        reason: String,
    },
    /// A key that was typed is none of the store's.
    #[error("the key {key:?} does not fit store {store}: {reason}")]
    Key {
        /// What was typed.
        key: String,
        /// The store.
        store: String,
        /// What would fit.
        reason: String,
    },
    /// Two states are not the same.
    #[error("the states differ: {rows} rows in all, in {stores} of the stores")]
    Different {
        /// Rows that one of them has alone, or with another value.
        rows: u64,
        /// Stores that differ.
        stores: usize,
    },
    /// What is committed of a task cannot be found out.
    #[error("nothing in {root} is deleted, since it is not known what is needed: {reason}")]
    NotKnown {
        /// The store and the folder in it.
        root: String,
        /// What is not known.
        reason: String,
    },
    /// What is being written could be deleted.
    #[error("a grace of {grace_ms} ms is too short: {reason}")]
    Grace {
        /// The grace in milliseconds.
        grace_ms: u64,
        /// Why.
        reason: String,
    },
    /// A savepoint of the name is there.
    #[error("{root} has a savepoint {name}; give the new one another name, or delete it with savepoint delete")]
    Taken {
        /// The store and the folder in it.
        root: String,
        /// The name.
        name: String,
    },
    /// An attempt at a savepoint of the name was cut off.
    #[error(
        "{root} has {objects} objects of a savepoint {name} that did not become complete: an import or a reshard was cut off, or still runs; remove them with savepoint delete {name}, then begin again"
    )]
    CutOff {
        /// The store and the folder in it.
        root: String,
        /// The name.
        name: String,
        /// Objects that it has left.
        objects: usize,
    },
    /// The rows of a store do not say which records they are of.
    #[error("store {store} cannot be spread over another number of tasks: {reason}")]
    Unkeyed {
        /// The store.
        store: String,
        /// Why.
        reason: String,
    },
    /// An input has no offset to begin at.
    #[error("{partition}, which a task reads, has no offset to begin at: {reason}")]
    NoOffset {
        /// The input.
        partition: TopicPartition,
        /// Why, and what to do.
        reason: String,
    },
    /// A row that is to be imported is none.
    #[error("line {line} is no row: {reason}")]
    BadRow {
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A name or a file on the command line cannot be used.
    #[error("{reason}")]
    BadName {
        /// What is wrong with it.
        reason: String,
    },
    /// A savepoint.
    #[error(transparent)]
    Savepoint(#[from] SavepointError),
    /// Something is where a copy is to go.
    #[error("{root} is not empty: it has {object}; a copy needs a folder of its own, give it another --to or --as")]
    Occupied {
        /// The store and the folder in it.
        root: String,
        /// One of the objects there.
        object: String,
    },
    /// Only Kafka knows, and nothing says where it is.
    #[error(
        "what is committed only Kafka knows, and nothing says where it is: set kafka.bootstrap_servers (or --embedded=DIR), {remedy}"
    )]
    NoKafka {
        /// What can be done without.
        remedy: &'static str,
    },
}

impl From<BlobError> for OfflineError {
    fn from(error: BlobError) -> Self {
        OfflineError::Snapshot(error.into())
    }
}

impl From<FormatError> for OfflineError {
    fn from(error: FormatError) -> Self {
        OfflineError::Snapshot(error.into())
    }
}

impl From<StateError> for OfflineError {
    fn from(error: StateError) -> Self {
        OfflineError::Snapshot(error.into())
    }
}

impl Coded for OfflineError {
    fn code(&self) -> &'static str {
        match self {
            OfflineError::Snapshot(error) => error.code(),
            OfflineError::Log(error) => error.code(),
            OfflineError::Pointer(error) => error.code(),
            OfflineError::Nothing { .. } => "TG4301",
            OfflineError::Unknown { .. } => "TG4302",
            OfflineError::Findings { .. } => "TG4303",
            OfflineError::NoWay { .. } => "TG4304",
            OfflineError::Key { .. } => "TG4305",
            OfflineError::Different { .. } => "TG4306",
            OfflineError::NoKafka { .. } => "TG4307",
            OfflineError::NotKnown { .. } => "TG4308",
            OfflineError::Grace { .. } => "TG4309",
            OfflineError::Occupied { .. } => "TG4310",
            OfflineError::Taken { .. } => "TG4311",
            OfflineError::CutOff { .. } => "TG4312",
            OfflineError::Unkeyed { .. } => "TG4313",
            OfflineError::NoOffset { .. } => "TG4314",
            OfflineError::BadRow { .. } => "TG4315",
            OfflineError::BadName { .. } => "TG4316",
            OfflineError::Savepoint(error) => error.code(),
        }
    }
}
