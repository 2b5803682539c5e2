//! What stops a worker for good. Everything that can be retried never leaves it.

use crate::durability::PointerError;
use crate::errors::Coded;
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::invariants::Violation;
use crate::log::LogError;
use crate::operators::Failure;
use crate::state::StateError;

use super::snapshots::SnapshotError;

/// Why a worker, and with it the instance, stops.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A record is bad and the policy of its node is to stop.
    #[error(
        "{0}; correct the topology or the record's producer, or set errors.nodes for this node to \"skip\" or \"dead_letter\""
    )]
    BadRecord(Failure),
    /// Local state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log failed in a way that a new client does not mend.
    #[error(transparent)]
    Log(LogError),
    /// The log no longer holds the offset where a task has to go on.
    #[error(
        "task {task} has to go on at offset {offset} of {partition}, which the log no longer holds: records were deleted before they were processed; reset the group's offsets for it and clear the state, knowing that the deleted records are not counted"
    )]
    InputGone {
        /// The task.
        task: TaskId,
        /// The input partition.
        partition: TopicPartition,
        /// The committed offset.
        offset: i64,
    },
    /// The pointer in the committed offsets cannot be read.
    #[error("task {task} cannot find its state: {source}")]
    Pointer {
        /// The task.
        task: TaskId,
        /// What is wrong with it.
        source: PointerError,
    },
    /// The inputs of a task were committed at different epochs, or some of them never (invariant I5).
    #[error(
        "the committed offsets of task {task} do not belong together: {reason}; commits of another application, or offsets reset for some inputs only? Reset all inputs of the application or none"
    )]
    TornCut {
        /// The task.
        task: TaskId,
        /// What differs.
        reason: String,
    },
    /// There is state on disk or in the changelog, but the group has no offsets (invariant I14).
    #[error(
        "task {task} has state ({found}) but the consumer group has no committed offsets for it: they expired or were deleted. Starting at the beginning would count everything twice; restore the offsets, or clear state and changelogs, or set state.allow_empty = true to start anew"
    )]
    OffsetsGone {
        /// The task.
        task: TaskId,
        /// What was found.
        found: String,
    },
    /// The plan has changed since the state was written.
    #[error(
        "task {task} was last committed by plan {committed}, this is plan {ours}: stores or internal topics would not match; go back to the former topology, or give the new one its own application.id"
    )]
    PlanChanged {
        /// The task.
        task: TaskId,
        /// Fingerprint in the committed pointer.
        committed: String,
        /// Fingerprint of the topology that runs.
        ours: String,
    },
    /// A restore made no progress.
    #[error(
        "the restore of task {task} stands still at offset {position} of {partition} (target {target}) for {waited_ms} ms: {cause}"
    )]
    RestoreStalled {
        /// The task.
        task: TaskId,
        /// The changelog partition.
        partition: TopicPartition,
        /// Where the reader is.
        position: i64,
        /// Where it has to get.
        target: i64,
        /// How long nothing moved, in milliseconds.
        waited_ms: u64,
        /// The likely cause.
        cause: &'static str,
    },
    /// A changelog that a replay needs has lost its beginning.
    #[error(
        "changelog {partition} no longer holds offset {offset}, needed to restore task {task} from epoch {epoch} of lineage {lineage}; its cleanup policy must be compact without deletion; clear the task's state directory to replay what is left"
    )]
    ChangelogGone {
        /// The task.
        task: TaskId,
        /// The changelog partition.
        partition: TopicPartition,
        /// The offset.
        offset: i64,
        /// Lineage on disk.
        lineage: Lineage,
        /// Epoch on disk.
        epoch: Epoch,
    },
    /// The strategy has changed since the state was written, and this instance cannot carry the change out.
    #[error("task {task} was last committed with durability = {committed:?}, now it is {ours:?}: {reason}")]
    StrategyChanged {
        /// The task.
        task: TaskId,
        /// The strategy of the last commit.
        committed: &'static str,
        /// The strategy that is set now.
        ours: &'static str,
        /// What is lacking, and what to do.
        reason: &'static str,
    },
    /// None of the snapshots can be used (invariant I14).
    #[error(
        "the state of task {task} at epoch {epoch} of lineage {lineage} cannot be restored; tried: {tried}. Bring the missing objects back (versions of the bucket, a copy), or go back to a savepoint; the task does not start empty"
    )]
    NoRestorePoint {
        /// The task.
        task: TaskId,
        /// Its lineage.
        lineage: Lineage,
        /// The committed epoch.
        epoch: Epoch,
        /// What was tried, and why it did not do.
        tried: String,
    },
    /// The snapshot repository failed in a way that waiting does not mend.
    #[error("the snapshot repository of task {task} cannot be used: {source}")]
    Snapshot {
        /// The task.
        task: TaskId,
        /// What went wrong.
        source: SnapshotError,
    },
    /// The engine found that it was about to break one of its own promises.
    #[error(
        "worker {worker} stops before it does harm: {violation}; this is a bug of the engine, please report it with the log"
    )]
    Invariant {
        /// The worker.
        worker: String,
        /// What was found.
        violation: Violation,
    },
}

impl Coded for WorkerError {
    fn code(&self) -> &'static str {
        match self {
            WorkerError::BadRecord(_) => "TG4001",
            WorkerError::State(error) => error.code(),
            WorkerError::Log(error) => error.code(),
            WorkerError::InputGone { .. } => "TG4002",
            WorkerError::Pointer { source, .. } => source.code(),
            WorkerError::TornCut { .. } => "TG4003",
            WorkerError::OffsetsGone { .. } => "TG4004",
            WorkerError::PlanChanged { .. } => "TG4005",
            WorkerError::RestoreStalled { .. } => "TG4006",
            WorkerError::ChangelogGone { .. } => "TG4007",
            WorkerError::Invariant { .. } => "TG4008",
            WorkerError::NoRestorePoint { .. } => "TG4009",
            WorkerError::StrategyChanged { .. } => "TG4010",
            WorkerError::Snapshot { source, .. } => source.code(),
        }
    }
}

impl From<Failure> for WorkerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::State(error) => WorkerError::State(error),
            bad => WorkerError::BadRecord(bad),
        }
    }
}
