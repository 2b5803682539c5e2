//! Opening a task: read the committed cut, look at the disk, replay the difference (design §4, §5).
//!
//! Runs beside the worker, which keeps processing its other tasks. Blocks, bounded by the restore time-out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::{Decision, Pointer, Refusal, changelog, decide};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::log::{Assignment, Isolation, Log, LogError};
use crate::state::{Overlay, StateBackend, StateMeta, StateResult, StoreSpec};
use crate::time::{Clock, Millis};

use super::error::WorkerError;
use super::metrics::{RestoreProgress, WorkerMetrics};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const RESTORE_BATCH_RECORDS: usize = 10_000;

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
    /// The task must not start.
    Refused(WorkerError),
}

impl From<WorkerError> for NotOpened {
    fn from(error: WorkerError) -> Self {
        NotOpened::Refused(error)
    }
}

impl From<crate::state::StateError> for NotOpened {
    fn from(error: crate::state::StateError) -> Self {
        NotOpened::Refused(error.into())
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
struct Committed {
    pointer: Option<Pointer>,
    cut: Vec<Option<i64>>,
}

impl Opener {
    /// Opens a task at its committed cut.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&self, mut request: OpenRequest) -> Result<Opened, NotOpened> {
        let committed = self.committed(&request)?;
        let cut = self.start_offsets(&request, &committed)?;
        if request.stores.is_empty() {
            return Ok(Opened {
                task: request.task,
                backend: None,
                cut,
                lineage: committed
                    .pointer
                    .as_ref()
                    .map_or(request.new_lineage, |pointer| pointer.lineage),
                epoch: committed.pointer.as_ref().map_or(Epoch(0), |pointer| pointer.epoch),
                changelog: Vec::new(),
            });
        }
        let backend = match request.backend.take() {
            Some(backend) => backend,
            None => self.states.open(request.task, &request.stores)?,
        };
        self.bring_up(&request, backend, committed.pointer, cut)
    }

    fn committed(&self, request: &OpenRequest) -> Result<Committed, NotOpened> {
        let offsets = self
            .log
            .admin()
            .committed(&request.application_id, &request.inputs, ASK_TIMEOUT)?;
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

    /// Where each input starts: its committed offset, or the first record that is there.
    fn start_offsets(&self, request: &OpenRequest, committed: &Committed) -> Result<Vec<i64>, NotOpened> {
        let admin = self.log.admin();
        let mut cut = Vec::with_capacity(request.inputs.len());
        for (partition, offset) in request.inputs.iter().zip(&committed.cut) {
            let watermarks = admin.watermarks(partition, ASK_TIMEOUT)?;
            match offset {
                Some(offset) if *offset < watermarks.low => {
                    let (task, partition, offset) = (request.task, partition.clone(), *offset);
                    return Err(WorkerError::InputGone {
                        task,
                        partition,
                        offset,
                    }
                    .into());
                }
                Some(offset) => cut.push(*offset),
                None => cut.push(watermarks.low),
            }
        }
        Ok(cut)
    }

    fn bring_up(
        &self,
        request: &OpenRequest,
        backend: Arc<dyn StateBackend>,
        pointer: Option<Pointer>,
        cut: Vec<i64>,
    ) -> Result<Opened, NotOpened> {
        let task = request.task;
        let local = backend.meta()?;
        let decision = match decide(local.as_ref(), pointer.as_ref(), self.clock.wall_ms()) {
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
        let lineage = pointer.as_ref().map_or(request.new_lineage, |pointer| pointer.lineage);
        let epoch = pointer.as_ref().map_or(Epoch(0), |pointer| pointer.epoch);
        let positions = self.restore(request, &backend, &decision, lineage, local.as_ref(), pointer.is_some())?;
        if !matches!(decision, Decision::Current) {
            let meta = StateMeta {
                lineage,
                epoch,
                ended_ms: self.clock.wall_ms(),
                cut: request.inputs.iter().cloned().zip(cut.iter().copied()).collect(),
                changelog: self
                    .changelog_partitions(request)
                    .into_iter()
                    .zip(positions.iter().copied())
                    .collect(),
            };
            backend.apply(&Overlay::new(&vec![false; request.stores.len()]), &meta)?;
        }
        self.count(&decision, task, lineage, epoch);
        Ok(Opened {
            task,
            backend: Some(backend),
            cut,
            lineage,
            epoch,
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

    fn changelog_partitions(&self, request: &OpenRequest) -> Vec<TopicPartition> {
        let topic = |store: &StoreSpec| changelog::topic_name(&request.application_id, &store.name);
        let partition = |store: &StoreSpec| TopicPartition::new(topic(store), request.task.partition);
        request.stores.iter().map(partition).collect()
    }

    /// Replays what the disk lacks. Answers, per store, the offset of the changelog from which on nothing is applied.
    fn restore(
        &self,
        request: &OpenRequest,
        backend: &Arc<dyn StateBackend>,
        decision: &Decision,
        lineage: Lineage,
        local: Option<&StateMeta>,
        has_pointer: bool,
    ) -> Result<Vec<i64>, NotOpened> {
        let admin = self.log.admin();
        let partitions = self.changelog_partitions(request);
        let mut targets = Vec::with_capacity(partitions.len());
        let mut assignments = Vec::new();
        for (index, partition) in partitions.iter().enumerate() {
            let watermarks = admin.watermarks(partition, ASK_TIMEOUT)?;
            targets.push(watermarks.high);
            let known = local.and_then(|local| local.changelog.get(partition)).copied();
            let from = match decision {
                Decision::Current => continue,
                Decision::Replay { .. } => known.unwrap_or(watermarks.low).max(0),
                Decision::Fresh | Decision::Rebuild { .. } => watermarks.low,
            };
            if from < watermarks.low {
                return Err(self.changelog_gone(request, partition, from, local));
            }
            if from < watermarks.high {
                assignments.push(Assignment {
                    slot: index as u32,
                    partition: partition.clone(),
                    offset: from,
                });
            }
        }
        if !assignments.is_empty() {
            let mut replay = Replay {
                opener: self,
                request,
                backend,
                partitions: &partitions,
                meta: interim_meta(decision, lineage, local, self.clock.wall_ms()),
                refuse_records: !has_pointer && !request.allow_empty_state,
            };
            let reached = replay.run(&assignments, &targets)?;
            for (slot, position) in reached {
                targets[slot as usize] = position;
            }
        }
        Ok(targets)
    }

    fn changelog_gone(
        &self,
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
}

/// What the disk says about itself while a replay is under way: the epoch it had, so that an interrupted
/// replay is recognised and goes on.
fn interim_meta(decision: &Decision, lineage: Lineage, local: Option<&StateMeta>, now_ms: Millis) -> StateMeta {
    match (decision, local) {
        (Decision::Replay { .. }, Some(local)) => local.clone(),
        _ => StateMeta {
            lineage,
            epoch: Epoch(0),
            ended_ms: now_ms,
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        },
    }
}

/// One replay of a task's changelogs (invariant I8).
struct Replay<'a> {
    opener: &'a Opener,
    request: &'a OpenRequest,
    backend: &'a Arc<dyn StateBackend>,
    partitions: &'a [TopicPartition],
    meta: StateMeta,
    refuse_records: bool,
}

impl Replay<'_> {
    fn run(&mut self, assignments: &[Assignment], targets: &[i64]) -> Result<Vec<(u32, i64)>, NotOpened> {
        let task = self.request.task;
        let mut consumer = self
            .opener
            .log
            .consumer(&format!("restore-{task}"), Isolation::ReadCommitted)?;
        consumer.assign(assignments)?;
        let total = assignments
            .iter()
            .map(|assigned| targets[assigned.slot as usize] - assigned.offset)
            .sum::<i64>();
        let mut restored = 0;
        let mut moved_at = self.opener.clock.monotonic();
        let mut last_passed = -1;
        loop {
            if self.request.cancelled.load(Ordering::Relaxed) {
                self.opener.metrics.set_restore(task, None);
                return Err(NotOpened::Cancelled);
            }
            match consumer.poll(RESTORE_BATCH_RECORDS, Duration::from_millis(20)) {
                Ok(Some(batch)) => restored += self.apply(&*batch)?,
                Ok(None) | Err(LogError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let position = |assigned: &Assignment| consumer.position(assigned.slot).unwrap_or(assigned.offset);
            let passed = assignments
                .iter()
                .map(|assigned| position(assigned) - assigned.offset)
                .sum::<i64>();
            if passed != last_passed {
                last_passed = passed;
                moved_at = self.opener.clock.monotonic();
                self.report(passed, total);
            }
            if assignments
                .iter()
                .all(|assigned| position(assigned) >= targets[assigned.slot as usize])
            {
                self.opener.metrics.set_restore(task, None);
                info!(%task, records = restored, offsets = passed, "changelogs replayed");
                return Ok(assignments
                    .iter()
                    .map(|assigned| (assigned.slot, position(assigned)))
                    .collect());
            }
            self.check_progress(assignments, targets, &position, moved_at)?;
        }
    }

    fn report(&self, passed: i64, total: i64) {
        let progress = RestoreProgress {
            task: self.request.task,
            passed: u64::try_from(passed).unwrap_or(0),
            target: u64::try_from(total).unwrap_or(0),
        };
        self.opener.metrics.set_restore(self.request.task, Some(progress));
    }

    fn check_progress(
        &self,
        assignments: &[Assignment],
        targets: &[i64],
        position: &dyn Fn(&Assignment) -> i64,
        moved_at: Duration,
    ) -> Result<(), NotOpened> {
        let waited = self.opener.clock.monotonic().saturating_sub(moved_at);
        if waited < self.request.restore_timeout {
            return Ok(());
        }
        self.opener.metrics.set_restore(self.request.task, None);
        let behind = assignments
            .iter()
            .find(|assigned| position(assigned) < targets[assigned.slot as usize]);
        let stalled = behind.map(|assigned| WorkerError::RestoreStalled {
            task: self.request.task,
            partition: assigned.partition.clone(),
            position: position(assigned),
            target: targets[assigned.slot as usize],
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            cause: "an open transaction of a former owner holds the last stable offset (it ends with its time-out), or the broker does not answer",
        });
        stalled.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Applies one batch and moves the interim metadata with it.
    fn apply(&mut self, batch: &dyn crate::log::RecordBatch) -> Result<u64, NotOpened> {
        let mut overlay = Overlay::new(&vec![false; self.request.stores.len()]);
        let mut count = 0;
        for run in batch.runs() {
            let store = crate::ids::StoreId(run.slot as u16);
            for index in run.start..run.end {
                let record = batch.record(index);
                let Some(key) = record.key else { continue };
                match record.value {
                    Some(value) => overlay.put(store, key, value),
                    None => overlay.delete(store, key),
                }
                count += 1;
            }
            if run.end > run.start {
                let next = batch.record(run.end - 1).offset + 1;
                self.meta
                    .changelog
                    .insert(self.partitions[run.slot as usize].clone(), next);
            }
        }
        if count > 0 && self.refuse_records {
            let found = "committed records in its changelog".to_owned();
            return Err(WorkerError::OffsetsGone {
                task: self.request.task,
                found,
            }
            .into());
        }
        self.backend.apply(&overlay, &self.meta)?;
        self.opener.metrics.restore_records.add(count);
        Ok(count)
    }
}
