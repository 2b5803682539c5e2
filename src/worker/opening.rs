//! Opening a task: read the committed cut, look at the disk, replay the difference (design §4, §5).
//!
//! Runs beside the worker, which keeps processing its other tasks. Blocks, bounded by the restore time-out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::{Decision, Pointer, Refusal, changelog, decide};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::log::{Assignment, Log, LogError};
use crate::planted::{Bug, planted};
use crate::state::{Overlay, StateBackend, StateError, StateMeta, StateResult, StoreSpec};
use crate::time::Clock;

use super::error::WorkerError;
use super::metrics::WorkerMetrics;
use super::replay::Replay;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

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
}

/// How opening ended without a task.
#[derive(Debug)]
pub enum NotOpened {
    /// The task is not wanted any more.
    Cancelled,
    /// The log did not answer in time; try again.
    Retry(LogError),
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
    Opened(Opened),
    /// Changelogs have to be read.
    Replaying(Box<Replay>),
}

/// What was found of a task: the log's word and the disk's, and what follows from both.
pub(super) struct Found {
    pub(super) request: OpenRequest,
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) decision: Decision,
    pub(super) local: Option<StateMeta>,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    /// What was committed when its offsets were read.
    pub(super) pointer: Option<Pointer>,
    /// Offsets of the inputs.
    pub(super) cut: Vec<i64>,
}

/// Opens tasks; shared by the workers of an instance.
pub struct Opener {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where databases come from.
    pub states: Arc<dyn StateProvider>,
    /// For deadlines.
    pub clock: Arc<dyn Clock>,
    /// Where progress goes.
    pub metrics: Arc<WorkerMetrics>,
}

/// What Kafka says about a task.
pub(super) struct Committed {
    pub(super) pointer: Option<Pointer>,
    cut: Vec<Option<i64>>,
}

impl Opener {
    /// Opens a task at its committed cut.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(self: &Arc<Self>, request: OpenRequest) -> Result<Opened, NotOpened> {
        match self.begin(request)? {
            Begun::Opened(opened) => Ok(opened),
            Begun::Replaying(mut replay) => loop {
                if let Some(result) = replay.step() {
                    return result;
                }
            },
        }
    }

    /// Does what needs no replay of changelogs, and begins that where it is needed.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn begin(self: &Arc<Self>, mut request: OpenRequest) -> Result<Begun, NotOpened> {
        // The first records are looked for before the offsets are read: while this task is still somebody else's, both may
        // move on together.
        let first = self.first_offsets(&request)?;
        let committed = self.committed(&request)?;
        let cut = start_offsets(&request, &committed, &first)?;
        if request.stores.is_empty() {
            let pointer = committed.pointer.as_ref();
            return Ok(Begun::Opened(Opened {
                task: request.task,
                backend: None,
                cut,
                lineage: pointer.map_or(request.new_lineage, |pointer| pointer.lineage),
                epoch: pointer.map_or(Epoch(0), |pointer| pointer.epoch),
                changelog: Vec::new(),
            }));
        }
        let backend = match request.backend.take() {
            Some(backend) => backend,
            None => self.states.open(request.task, &request.stores)?,
        };
        self.bring_up(request, backend, committed.pointer.as_ref(), cut)
    }

    pub(super) fn committed(&self, request: &OpenRequest) -> Result<Committed, NotOpened> {
        let offsets = self
            .log
            .admin()
            .committed(&request.application_id, &request.inputs, ASK_TIMEOUT);
        let offsets = match offsets {
            Err(_) if planted(Bug::NoAnswerIsNoOffsets) => vec![None; request.inputs.len()],
            offsets => offsets?,
        };
        let mut pointers = Vec::new();
        for committed in offsets.iter().flatten() {
            let pointer = Pointer::from_metadata(&committed.metadata).map_err(|source| WorkerError::Pointer {
                task: request.task,
                source,
            })?;
            pointers.push(pointer);
        }
        let torn = |reason: String| WorkerError::TornCut {
            task: request.task,
            reason,
        };
        let pointer = pointers.first().cloned();
        if let Some(first) = &pointer {
            if let Some(missing) = offsets.iter().position(Option::is_none) {
                return Err(torn(format!(
                    "{} has no committed offset, others have",
                    request.inputs[missing]
                ))
                .into());
            }
            if let Some(other) = pointers.iter().find(|other| *other != first) {
                return Err(torn(format!(
                    "epoch {} of lineage {} beside epoch {} of lineage {}",
                    first.epoch, first.lineage, other.epoch, other.lineage
                ))
                .into());
            }
            if first.plan != request.plan {
                let (committed, ours) = (first.plan.clone(), request.plan.clone());
                return Err(WorkerError::PlanChanged {
                    task: request.task,
                    committed,
                    ours,
                }
                .into());
            }
        }
        Ok(Committed {
            pointer,
            cut: offsets
                .iter()
                .map(|committed| committed.as_ref().map(|committed| committed.offset))
                .collect(),
        })
    }

    /// The first offset that each input has.
    fn first_offsets(&self, request: &OpenRequest) -> Result<Vec<i64>, NotOpened> {
        let admin = self.log.admin();
        let first = |partition| Ok(admin.watermarks(partition, ASK_TIMEOUT)?.low);
        request.inputs.iter().map(first).collect()
    }

    fn bring_up(
        self: &Arc<Self>,
        request: OpenRequest,
        backend: Arc<dyn StateBackend>,
        pointer: Option<&Pointer>,
        cut: Vec<i64>,
    ) -> Result<Begun, NotOpened> {
        let task = request.task;
        let local = backend.meta()?;
        let trusted;
        let (pointer, cut) = match &local {
            Some(local) if planted(Bug::TrustTheDisk) => {
                trusted = Pointer {
                    lineage: local.lineage,
                    epoch: local.epoch,
                    plan: request.plan.clone(),
                };
                let inputs = request.inputs.iter().zip(cut);
                let cut = inputs.map(|(input, offset)| local.cut.get(input).copied().unwrap_or(offset));
                (Some(&trusted), cut.collect())
            }
            _ => (pointer, cut),
        };
        let decision = match decide(local.as_ref(), pointer, self.clock.wall_ms()) {
            Ok(decision) => decision,
            Err(Refusal::OffsetsGone { .. }) if request.allow_empty_state => Decision::Rebuild {
                reason: "state.allow_empty is set and the group has no offsets".into(),
            },
            Err(Refusal::OffsetsGone { lineage, epoch }) => {
                let found = format!("epoch {epoch} of lineage {lineage} on disk");
                return Err(WorkerError::OffsetsGone { task, found }.into());
            }
        };
        let backend = match &decision {
            Decision::Rebuild { reason } => {
                warn!(%task, %reason, "local state cannot be used; rebuilding it from the changelog");
                drop(backend);
                self.states.clear(task)?;
                self.states.open(task, &request.stores)?
            }
            _ => backend,
        };
        let found = Found {
            lineage: pointer.map_or(request.new_lineage, |pointer| pointer.lineage),
            epoch: pointer.map_or(Epoch(0), |pointer| pointer.epoch),
            pointer: pointer.cloned(),
            request,
            backend,
            decision,
            local,
            cut,
        };
        self.restore(found)
    }

    /// Ends an opening: the disk has what it needs, up to these offsets of the changelogs.
    pub(super) fn finish(&self, found: Found, positions: Vec<i64>) -> Result<Opened, NotOpened> {
        let request = &found.request;
        if !matches!(found.decision, Decision::Current) {
            let partitions = changelog_partitions(request).into_iter();
            let meta = StateMeta {
                lineage: found.lineage,
                epoch: found.epoch,
                ended_ms: self.clock.wall_ms(),
                cut: request.inputs.iter().cloned().zip(found.cut.iter().copied()).collect(),
                changelog: partitions.zip(positions.iter().copied()).collect(),
            };
            found
                .backend
                .apply(&Overlay::new(&vec![false; request.stores.len()]), &meta)?;
        }
        self.count(&found.decision, request.task, found.lineage, found.epoch);
        Ok(Opened {
            task: request.task,
            backend: Some(found.backend),
            cut: found.cut,
            lineage: found.lineage,
            epoch: found.epoch,
            changelog: positions,
        })
    }

    fn count(&self, decision: &Decision, task: TaskId, lineage: Lineage, epoch: Epoch) {
        let (counter, found) = match decision {
            Decision::Fresh => (&self.metrics.opened_fresh, "nothing"),
            Decision::Current => (&self.metrics.opened_current, "the committed epoch"),
            Decision::Replay { .. } => (&self.metrics.opened_replayed, "an earlier epoch"),
            Decision::Rebuild { .. } => (&self.metrics.opened_rebuilt, "nothing that can be used"),
        };
        counter.add(1);
        info!(%task, %lineage, %epoch, found, "task opened");
    }

    /// Finds out what the disk lacks; begins to replay it.
    fn restore(self: &Arc<Self>, found: Found) -> Result<Begun, NotOpened> {
        let admin = self.log.admin();
        let mut targets = Vec::new();
        let mut assignments = Vec::new();
        for (index, partition) in changelog_partitions(&found.request).into_iter().enumerate() {
            let watermarks = admin.watermarks(&partition, ASK_TIMEOUT)?;
            targets.push(watermarks.high);
            let local = found.local.as_ref();
            let from = match found.decision {
                Decision::Current => continue,
                Decision::Replay { .. } => local
                    .and_then(|local| local.changelog.get(&partition).copied())
                    .unwrap_or(watermarks.low)
                    .max(0),
                Decision::Fresh | Decision::Rebuild { .. } => watermarks.low,
            };
            if from < watermarks.low {
                return Err(changelog_gone(&found.request, &partition, from, local));
            }
            if from < watermarks.high {
                assignments.push(Assignment {
                    slot: index as u32,
                    partition,
                    offset: from,
                });
            }
        }
        if assignments.is_empty() {
            return self.finish(found, targets).map(Begun::Opened);
        }
        let replay = Replay::begin(Arc::clone(self), found, assignments, targets)?;
        Ok(Begun::Replaying(Box::new(replay)))
    }
}

/// Where each input starts: its committed offset, or the first record that is there.
fn start_offsets(request: &OpenRequest, committed: &Committed, first: &[i64]) -> Result<Vec<i64>, NotOpened> {
    let mut cut = Vec::with_capacity(request.inputs.len());
    for (index, partition) in request.inputs.iter().enumerate() {
        let begun_at = request.begun_at.get(index).copied();
        match committed.cut[index].or(begun_at) {
            Some(offset) if offset < first[index] => {
                let (task, partition) = (request.task, partition.clone());
                return Err(WorkerError::InputGone {
                    task,
                    partition,
                    offset,
                }
                .into());
            }
            known => cut.push(known.unwrap_or(first[index])),
        }
    }
    Ok(cut)
}

/// The changelog partition of each store of a task.
pub(super) fn changelog_partitions(request: &OpenRequest) -> Vec<TopicPartition> {
    let topic = |store: &StoreSpec| changelog::topic_name(&request.application_id, &store.name);
    let partition = |store: &StoreSpec| TopicPartition::new(topic(store), request.task.partition);
    request.stores.iter().map(partition).collect()
}

fn changelog_gone(
    request: &OpenRequest,
    partition: &TopicPartition,
    offset: i64,
    local: Option<&StateMeta>,
) -> NotOpened {
    NotOpened::Refused(WorkerError::ChangelogGone {
        task: request.task,
        partition: partition.clone(),
        offset,
        lineage: local.map_or(Lineage(0), |local| local.lineage),
        epoch: local.map_or(Epoch(0), |local| local.epoch),
    })
}
