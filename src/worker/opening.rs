//! What opening a task asks for, goes through, and comes to.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::durability::snapshot::Chain;
use crate::durability::{Beginning, Decision, Durability, Pointer, Transition};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::log::LogError;
use crate::planted::{Bug, planted};
use crate::state::{Fetching, Installation, StateBackend, StateError, StateMeta, StateResult, StoreSpec};

use super::error::WorkerError;
use super::snapshots::{FileHashes, SnapshotError};

/// Opens and clears tasks' databases; implemented by the instance for each backend.
pub trait StateProvider: Send + Sync {
    /// Opens the database of a task, creating it if needed.
    ///
    /// # Errors
    /// As the backend's own.
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>>;

    /// Removes everything of a task. Its database must be closed.
    ///
    /// # Errors
    /// As the backend's own.
    fn clear(&self, task: TaskId) -> StateResult<()>;

    /// Begins to put a task's database together from the files of a checkpoint, beside the one that it has.
    ///
    /// # Errors
    /// As the backend's own.
    fn install(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Box<dyn Installation>>;

    /// Opens the database of a task that [`StateProvider::open`] refuses because it lacks files; they come while it is used.
    ///
    /// # Errors
    /// As the backend's own.
    fn resume(&self, task: TaskId, stores: &[StoreSpec], _fetching: Fetching) -> StateResult<Arc<dyn StateBackend>> {
        self.open(task, stores)
    }
}

/// What is needed to open one task.
pub struct OpenRequest {
    /// The task.
    pub task: TaskId,
    /// The consumer group.
    pub application_id: String,
    /// Fingerprint of the plan.
    pub plan: String,
    /// Input partitions, in the order of the sub-topology's sources.
    pub inputs: Vec<TopicPartition>,
    /// The task's stores.
    pub stores: Vec<StoreSpec>,
    /// The open database of a task that goes back to its committed cut; `None` to open it.
    pub backend: Option<Arc<dyn StateBackend>>,
    /// Where a task that goes back had begun; empty for one that has not run.
    pub begun_at: Vec<i64>,
    /// The strategy that is to make its state durable.
    pub durability: Durability,
    /// Lineage for a task that has none.
    pub new_lineage: Lineage,
    /// A restore without progress for this long fails.
    pub restore_timeout: Duration,
    /// Start empty although there was state.
    pub allow_empty_state: bool,
    /// Set when the task is not wanted any more.
    pub cancelled: Arc<AtomicBool>,
}

/// A task's state at its committed cut.
pub struct Opened {
    /// The task.
    pub task: TaskId,
    /// Its database; `None` for a task without stores.
    pub backend: Option<Arc<dyn StateBackend>>,
    /// Offsets of the inputs, in the order of [`OpenRequest::inputs`].
    pub cut: Vec<i64>,
    /// The history that it continues.
    pub lineage: Lineage,
    /// The last committed epoch.
    pub epoch: Epoch,
    /// Per store, an offset of its changelog at or before everything that comes next.
    pub changelog: Vec<i64>,
    /// The strategy that the last commit was made under, and the one that is set.
    pub transition: Transition,
    /// As in [`Pointer::since`].
    pub since: Option<Beginning>,
    /// What is known of its state in the repository; `None` where there is none.
    pub chain: Option<Chain>,
    /// Its partition of the spill topic and its end; `None` where nothing is spilled.
    pub spill: Option<(TopicPartition, i64)>,
    /// What is known of the files of its database.
    pub(super) hashes: Arc<FileHashes>,
}

/// How opening ended without a task.
#[derive(Debug)]
pub enum NotOpened {
    /// The task is not wanted any more.
    Cancelled,
    /// The log did not answer in time; try again.
    Retry(LogError),
    /// The object store did not answer in time; try again.
    Waits(SnapshotError),
    /// Somebody else has gone on with the task since its offsets were read; try again.
    Outdated,
    /// Work of this process that ends soon still holds the database: an epoch being applied, or an opening that is not wanted
    /// any more. Other processes are kept out by the lock on the instance's directory.
    Held(StateError),
    /// The task must not start.
    Refused(WorkerError),
}

impl From<WorkerError> for NotOpened {
    fn from(error: WorkerError) -> Self {
        NotOpened::Refused(error)
    }
}

impl From<StateError> for NotOpened {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Locked { .. } if !planted(Bug::HeldIsRefused) => NotOpened::Held(error),
            error if error.is_about_lacking_files() => NotOpened::Waits(error.into()),
            error => NotOpened::Refused(error.into()),
        }
    }
}

impl From<LogError> for NotOpened {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unreachable { .. } | LogError::TimedOut { .. } => NotOpened::Retry(error),
            other => NotOpened::Refused(WorkerError::Log(other)),
        }
    }
}

/// How far an opening is after its first step.
pub enum Begun {
    /// It is done.
    Opened(Box<Opened>),
    /// State has to be fetched.
    Underway(Box<dyn Stage>),
}

impl Begun {
    pub(super) fn opened(opened: Opened) -> Self {
        Begun::Opened(Box::new(opened))
    }
}

/// A part of an opening that takes its time. Whoever holds it calls [`Stage::step`] until there is an outcome; dropping it ends it.
pub trait Stage: Send {
    /// Goes on a little; the outcome, or the next stage, once this one is over.
    fn step(&mut self) -> Option<Result<Begun, NotOpened>>;
}

/// What was found of a task: the log's word and the disk's, and what follows from both.
pub(super) struct Found {
    pub(super) request: OpenRequest,
    /// Its database; `None` while it is put together anew.
    pub(super) backend: Option<Arc<dyn StateBackend>>,
    pub(super) decision: Decision,
    /// What was decided at first; a base snapshot makes less of it.
    pub(super) found: Decision,
    pub(super) local: Option<StateMeta>,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    /// What was committed when its offsets were read.
    pub(super) pointer: Option<Pointer>,
    /// By what strategy it is restored, and which one follows.
    pub(super) transition: Transition,
    /// Offsets of the inputs.
    pub(super) cut: Vec<i64>,
    /// What was found of its state in the repository.
    pub(super) chain: Option<Chain>,
    /// As in [`Opened::spill`].
    pub(super) spill: Option<(TopicPartition, i64)>,
    pub(super) hashes: Arc<FileHashes>,
    /// Whether its database may be used before all of its files are here.
    pub(super) may_lack_files: bool,
}

impl Found {
    /// Where the changelogs begin to count, where that is not at their first records.
    pub(super) fn since(&self) -> Option<&Beginning> {
        let since = self.pointer.as_ref()?.since.as_ref();
        since.filter(|_| !planted(Bug::ForgetSince))
    }

    /// The same for the store with this index.
    pub(super) fn first_offset(&self, store: usize) -> i64 {
        let offset = self.since().and_then(|since| since.offsets.get(store));
        offset.copied().unwrap_or(0)
    }

    /// Whether the changelogs lead on from the state that `meta` speaks of.
    pub(super) fn leads_on_from(&self, meta: &StateMeta, changelogs: &[TopicPartition]) -> bool {
        let Some(since) = self.since() else { return true };
        let is_known = |(store, partition): (usize, &TopicPartition)| {
            let offset = meta.changelog.get(partition);
            offset.is_some_and(|offset| *offset >= self.first_offset(store))
        };
        meta.epoch >= since.epoch && changelogs.iter().enumerate().all(is_known)
    }
}
