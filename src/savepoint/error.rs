//! Why a savepoint cannot be taken, read or used.

use crate::blob::BlobError;
use crate::durability::snapshot::FormatError;
use crate::errors::Coded;
use crate::ids::{TaskId, TopicPartition};
use crate::instance::InstanceError;
use crate::log::LogError;
use crate::state::StateError;
use crate::worker::SnapshotError;

/// Why something about a savepoint did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// The name is taken.
    #[error("{root} has a savepoint {name} already, or one is being taken; choose another name, or delete it first")]
    Exists {
        /// The store and the folder in it.
        root: String,
        /// The name.
        name: String,
    },
    /// There is no such savepoint.
    #[error("{root} has no savepoint {name}; `savepoint list` shows what there is")]
    NotFound {
        /// The store and the folder in it.
        root: String,
        /// The name.
        name: String,
    },
    /// Not all tasks have answered in time.
    #[error(
        "savepoint {name} was not complete after {timeout_ms} ms: {progress}; do all instances run, with the same snapshot.url? Raise --timeout where the upload takes longer"
    )]
    TimedOut {
        /// The name.
        name: String,
        /// How long it was waited for, in milliseconds.
        timeout_ms: u64,
        /// How far it was.
        progress: String,
    },
    /// An instance has given it up.
    #[error("savepoint {name} was given up by {by}: {reason}; the application goes on, take it again")]
    GivenUp {
        /// The name.
        name: String,
        /// The instance and its worker.
        by: String,
        /// Why.
        reason: String,
    },
    /// It was taken of another topology.
    #[error(
        "the topology is not the one that the state of {what} is of:\n{difference}\nrestore it with the topology that wrote it"
    )]
    PlanDiffers {
        /// Of what the state is.
        what: String,
        /// What changed, line by line.
        difference: String,
    },
    /// The application runs.
    #[error(
        "group {group} is in use ({reason}); stop all instances of the application, and wait until their sessions are over"
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// What was found.
        reason: String,
    },
    /// The application has state of its own.
    #[error(
        "application {application} has committed offsets already (of {partition}); choose an application.id that is new, or give --replace to lose that state"
    )]
    HasOffsets {
        /// The application.
        application: String,
        /// An input partition with an offset.
        partition: TopicPartition,
    },
    /// An input no longer holds what comes after the state.
    #[error(
        "task {task} would go on at offset {offset} of {partition}, which has {low} to {high}; the records between are gone"
    )]
    InputGone {
        /// The task.
        task: TaskId,
        /// The input partition.
        partition: TopicPartition,
        /// Where the task would go on.
        offset: i64,
        /// The first offset that is there.
        low: i64,
        /// The end.
        high: i64,
    },
    /// The application has other tasks than the state.
    #[error(
        "the state of {what} is of tasks {has}, and the application would have {needs}; partitions of its inputs were added since"
    )]
    TasksDiffer {
        /// Of what the state is.
        what: String,
        /// The tasks that the state is of.
        has: String,
        /// The tasks that the application has.
        needs: String,
    },
    /// Past snapshots of tasks are not of one moment.
    #[error(
        "past snapshots of the tasks of {application} are each of a moment of its own, and topic {topic} leads from task to task: what was on its way would be lost or come twice; take a savepoint instead"
    )]
    NotIndependent {
        /// The application.
        application: String,
        /// A repartition topic.
        topic: String,
    },
    /// A task has no snapshot that is old enough.
    #[error("task {task} has no base snapshot {wanted} in {root}{hint}")]
    NoPast {
        /// The store and the folder in it.
        root: String,
        /// The task.
        task: TaskId,
        /// What was asked for.
        wanted: String,
        /// What there is.
        hint: String,
    },
    /// Somebody joined the group in the midst of a restore.
    #[error(
        "group {group} did not stay ours until the restore had ended ({reason}); nothing was committed, stop whoever joined it and run it again"
    )]
    GroupLost {
        /// The group.
        group: String,
        /// What happened.
        reason: String,
    },
    /// Objects are missing or wrong.
    #[error("savepoint {name} cannot be used: {}", .problems.join("; "))]
    Damaged {
        /// The name.
        name: String,
        /// What is wrong, an object each.
        problems: Vec<String>,
    },
    /// Its stores are not those of the topology.
    #[error("task {task} of savepoint {name} has stores {has}, the topology has {needs}")]
    StoresDiffer {
        /// The task.
        task: TaskId,
        /// The savepoint.
        name: String,
        /// What the savepoint has.
        has: String,
        /// What the topology has.
        needs: String,
    },
    /// No object store is named.
    #[error("savepoints need an object store; set snapshot.url")]
    NoObjectStore,
    /// The object store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An object is not what it should be.
    #[error(transparent)]
    Object(#[from] FormatError),
    /// Local state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A step on the repository failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Topics or plan of the application are not right.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl Coded for SavepointError {
    fn code(&self) -> &'static str {
        match self {
            SavepointError::Exists { .. } => "TG4201",
            SavepointError::NotFound { .. } => "TG4202",
            SavepointError::TimedOut { .. } => "TG4203",
            SavepointError::GivenUp { .. } => "TG4204",
            SavepointError::PlanDiffers { .. } => "TG4205",
            SavepointError::GroupInUse { .. } => "TG4206",
            SavepointError::HasOffsets { .. } => "TG4207",
            SavepointError::InputGone { .. } => "TG4208",
            SavepointError::TasksDiffer { .. } => "TG4209",
            SavepointError::NotIndependent { .. } => "TG4210",
            SavepointError::NoPast { .. } => "TG4211",
            SavepointError::GroupLost { .. } => "TG4212",
            SavepointError::Damaged { .. } => "TG4213",
            SavepointError::StoresDiffer { .. } => "TG4215",
            SavepointError::NoObjectStore => "TG4216",
            SavepointError::Blob(error) => error.code(),
            SavepointError::Object(error) => error.code(),
            SavepointError::State(error) => error.code(),
            SavepointError::Log(error) => error.code(),
            SavepointError::Snapshot(error) => error.code(),
            SavepointError::Instance(error) => error.code(),
        }
    }
}
