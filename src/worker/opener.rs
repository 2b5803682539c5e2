//! Opening a task: read the committed cut, look at the disk, fetch what it lacks (design §4, §5).
//!
//! Runs beside the worker, which keeps processing its other tasks. Blocks, bounded by the restore time-out.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::snapshot::{Chain, manifests_folder, spill_partition};
use crate::durability::{Decision, Durability, Pointer, Refusal, Transition, changelog, decide};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::log::{Assignment, Log, LogError};
use crate::planted::{Bug, planted};
use crate::state::{Overlay, StateBackend, StateError, StateMeta, StoreSpec};
use crate::time::{Clock, Millis};

use super::error::WorkerError;
use super::metrics::WorkerMetrics;
use super::opening::{Begun, Found, NotOpened, OpenRequest, Opened, StateProvider};
use super::replay::Replay;
use super::snapshots::{FileHashes, Repository, RepositoryFiles, RepositoryRestore, SnapshotError};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Stands for a number of increments that could not be found out, or that do not reach back to the beginning: whoever needs all of them finds that
/// some are missing.
pub(super) const UNKNOWN_DEPTH: u64 = 1 << 62;

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
    /// The snapshot repository; `None` where there is no object store.
    pub repository: Option<Arc<Repository>>,
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
        let mut begun = self.begin(request)?;
        loop {
            match begun {
                Begun::Opened(opened) => return Ok(*opened),
                Begun::Underway(mut stage) => {
                    begun = loop {
                        if let Some(outcome) = stage.step() {
                            break outcome?;
                        }
                    };
                }
            }
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
        let spill = self.spill_end(&request)?;
        let committed = self.committed(&request)?;
        let cut = start_offsets(&request, &committed, &first)?;
        if request.stores.is_empty() {
            let pointer = committed.pointer.as_ref();
            return Ok(Begun::Opened(Box::new(Opened {
                task: request.task,
                backend: None,
                cut,
                lineage: pointer.map_or(request.new_lineage, |pointer| pointer.lineage),
                epoch: pointer.map_or(Epoch(0), |pointer| pointer.epoch),
                changelog: Vec::new(),
                transition: Transition::none(request.durability),
                since: None,
                chain: None,
                spill: None,
                hashes: Arc::default(),
            })));
        }
        let hashes = Arc::default();
        // One of whose files cannot be had is of no use any more.
        let kept = request.backend.take().filter(|backend| !backend.is_given_up());
        let backend = match kept {
            Some(backend) => Some(backend),
            None => self.open_database(&request, &hashes)?,
        };
        self.bring_up(request, (backend, hashes), committed.pointer.as_ref(), cut, spill)
    }

    /// The database that the task has here, also where a lazy restore of it has not ended; `None` where that came to nothing.
    fn open_database(
        &self,
        request: &OpenRequest,
        hashes: &Arc<FileHashes>,
    ) -> Result<Option<Arc<dyn StateBackend>>, NotOpened> {
        match (self.states.open(request.task, &request.stores), &self.repository) {
            (Err(StateError::Incomplete { is_given_up: false, .. }), Some(repository)) => {
                let fetching = RepositoryFiles::fetching(repository, hashes, &self.metrics);
                Ok(Some(self.states.resume(request.task, &request.stores, fetching)?))
            }
            (Err(error @ StateError::Incomplete { .. }), _) => {
                warn!(task = %request.task, %error, "local state cannot be used");
                Ok(None)
            }
            (opened, _) => Ok(Some(opened?)),
        }
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
        (backend, hashes): (Option<Arc<dyn StateBackend>>, Arc<FileHashes>),
        pointer: Option<&Pointer>,
        cut: Vec<i64>,
        spill: Option<(TopicPartition, i64)>,
    ) -> Result<Begun, NotOpened> {
        let task = request.task;
        let local = backend.as_ref().map(|backend| backend.meta()).transpose()?.flatten();
        if backend.is_none() && pointer.is_none() && !request.allow_empty_state {
            let found = "files of a lazy restore that has not ended".to_owned();
            return Err(WorkerError::OffsetsGone { task, found }.into());
        }
        let trusted;
        let (pointer, cut) = match &local {
            Some(local) if planted(Bug::TrustTheDisk) => {
                trusted = Pointer {
                    lineage: local.lineage,
                    epoch: local.epoch,
                    plan: request.plan.clone(),
                    durability: request.durability,
                    state: pointer.map(|pointer| pointer.state.clone()).unwrap_or_default(),
                    since: pointer.and_then(|pointer| pointer.since.clone()),
                };
                let inputs = request.inputs.iter().zip(cut);
                let cut = inputs.map(|(input, offset)| local.cut.get(input).copied().unwrap_or(offset));
                (Some(&trusted), cut.collect())
            }
            _ => (pointer, cut),
        };
        let transition = self.transition(&request, pointer)?;
        let spill = spill.filter(|_| transition.has_packs());
        let decision = match decide(local.as_ref(), pointer, self.now_ms_for(transition.from)) {
            Ok(decision) => decision,
            Err(Refusal::OffsetsGone { .. }) if request.allow_empty_state => Decision::Rebuild {
                reason: "state.allow_empty is set and the group has no offsets".into(),
            },
            Err(Refusal::OffsetsGone { lineage, epoch }) => {
                let found = format!("epoch {epoch} of lineage {lineage} on disk");
                return Err(WorkerError::OffsetsGone { task, found }.into());
            }
        };
        let is_stored = pointer.is_some_and(|pointer| pointer.state.base.is_some());
        let may_lack_files = backend.is_some();
        let mut found = Found {
            lineage: pointer.map_or(request.new_lineage, |pointer| pointer.lineage),
            epoch: pointer.map_or(Epoch(0), |pointer| pointer.epoch),
            pointer: pointer.cloned(),
            transition,
            request,
            backend: None,
            found: decision.clone(),
            decision,
            local,
            cut,
            chain: None,
            spill,
            hashes,
            may_lack_files,
        };
        let is_of_another_time = transition.from == Durability::Changelog
            && matches!(found.decision, Decision::Replay { .. })
            && !self.is_replayed(&found)
            && !planted(Bug::ReplayAcrossChanges);
        if is_of_another_time {
            found.decision = Decision::Rebuild {
                reason: "the strategy has changed since: the changelog does not go back to it".into(),
            };
            found.found = found.decision.clone();
        }
        if let Decision::Rebuild { reason } = &found.decision {
            warn!(%task, %reason, "local state cannot be used; rebuilding it");
        }
        found.backend = match &found.decision {
            // Files of a disk that cannot be used as it is may still be those of a snapshot.
            Decision::Rebuild { .. } if is_stored => backend,
            Decision::Fresh | Decision::Current | Decision::Replay { .. } if backend.is_some() => backend,
            _ => {
                drop(backend);
                self.states.clear(task)?;
                Some(self.states.open(task, &found.request.stores)?)
            }
        };
        match self.repository.clone() {
            Some(repository) if self.is_in_repository(&found)? => Ok(Begun::Underway(Box::new(
                RepositoryRestore::new(Arc::clone(self), repository, found),
            ))),
            _ => self.restore(found),
        }
    }

    /// Where the task would spill, and an offset there before all that it will.
    fn spill_end(&self, request: &OpenRequest) -> Result<Option<(TopicPartition, i64)>, NotOpened> {
        let spills = self
            .repository
            .as_ref()
            .is_some_and(|repository| repository.settings.spill);
        if !spills || request.stores.is_empty() {
            return Ok(None);
        }
        let partition = spill_partition(&request.application_id, request.task);
        match self.log.admin().watermarks(&partition, ASK_TIMEOUT) {
            Ok(watermarks) => Ok(Some((partition, watermarks.high))),
            // The strategy has never been one that spills.
            Err(LogError::UnknownTopic { .. }) if !request.durability.has_packs() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether changelogs bring the disk up to date.
    fn is_replayed(&self, found: &Found) -> bool {
        let partitions = changelog_partitions(&found.request, found.transition);
        found
            .local
            .as_ref()
            .is_some_and(|local| found.leads_on_from(local, &partitions))
    }

    /// By which strategy the state is restored, and which one follows.
    fn transition(&self, request: &OpenRequest, pointer: Option<&Pointer>) -> Result<Transition, NotOpened> {
        let transition = Transition {
            from: pointer.map_or(request.durability, |pointer| pointer.durability),
            to: request.durability,
        };
        if transition.has_snapshots() && self.repository.is_none() {
            return Err(WorkerError::StrategyChanged {
                task: request.task,
                committed: transition.from.word(),
                ours: transition.to.word(),
                reason: "its state is in an object store, and this instance has none: set snapshot.url as it was until the change is complete",
            }
            .into());
        }
        if transition.is_under_way() {
            let (from, to) = (transition.from.word(), transition.to.word());
            info!(task = %request.task, from, to, "the strategy changes: both are written until the new one is complete");
        }
        Ok(transition)
    }

    /// Age matters only to what a compacted changelog brings up to date.
    fn now_ms_for(&self, durability: Durability) -> Millis {
        match durability {
            Durability::Changelog => self.clock.wall_ms(),
            Durability::Snapshot | Durability::ChangelogAndSnapshot => Millis::MIN,
        }
    }

    /// Whether the repository is needed to open a task.
    fn is_in_repository(&self, found: &Found) -> Result<bool, NotOpened> {
        match found.transition.from {
            Durability::Changelog => Ok(false),
            Durability::Snapshot => {
                if found.pointer.is_none() {
                    self.check_nothing_is_stored(found)?;
                }
                Ok(found.pointer.is_some())
            }
            Durability::ChangelogAndSnapshot => match (&found.decision, &found.local) {
                (Decision::Fresh, _) => {
                    self.check_nothing_is_stored(found)?;
                    Ok(false)
                }
                (Decision::Rebuild { .. }, _) => Ok(found
                    .pointer
                    .as_ref()
                    .is_some_and(|pointer| pointer.state.base.is_some())),
                (Decision::Replay { .. }, Some(local)) => self.is_trimmed(found, local),
                _ => Ok(false),
            },
        }
    }

    /// Whether the changelogs no longer have what a disk lacks.
    fn is_trimmed(&self, found: &Found, local: &StateMeta) -> Result<bool, NotOpened> {
        let partitions = changelog_partitions(&found.request, found.transition);
        if !found.leads_on_from(local, &partitions) && !planted(Bug::ReplayAcrossChanges) {
            return Ok(true);
        }
        for partition in partitions {
            let low = self.log.admin().watermarks(&partition, ASK_TIMEOUT)?.low;
            if local.changelog.get(&partition).is_none_or(|offset| *offset < low) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the changelogs end that are written from now on, and were not until now.
    pub(super) fn changelog_ends(&self, found: &Found) -> Result<Vec<i64>, NotOpened> {
        let admin = self.log.admin();
        let end = |partition| Ok(admin.watermarks(&partition, ASK_TIMEOUT)?.high);
        let partitions = changelog_partitions(&found.request, found.transition);
        partitions.into_iter().map(end).collect()
    }

    /// Invariant I14 for a task without committed offsets: snapshots say that there was state.
    fn check_nothing_is_stored(&self, found: &Found) -> Result<(), NotOpened> {
        let (Some(repository), task) = (&self.repository, found.request.task) else {
            return Ok(());
        };
        let stored = repository.store.list(&manifests_folder(task));
        let stored = stored.map_err(|source| SnapshotError::from(source).on_opening(task))?;
        if stored.is_empty() || found.request.allow_empty_state {
            return Ok(());
        }
        // Whoever took the task over meanwhile has made them.
        if self.committed(&found.request)?.pointer.is_some() {
            return Err(NotOpened::Outdated);
        }
        let found = format!("{} snapshots of it in {}", stored.len(), repository.store.root());
        Err(WorkerError::OffsetsGone { task, found }.into())
    }

    /// Ends an opening: the disk has what it needs, up to these offsets of the changelogs.
    pub(super) fn finish(&self, found: Found, positions: Vec<i64>) -> Result<Opened, NotOpened> {
        let request = &found.request;
        let Some(backend) = found.backend else {
            return Err(NotOpened::Outdated);
        };
        let (transition, partitions) = (found.transition, changelog_partitions(request, found.transition));
        let mut meta = StateMeta {
            lineage: found.lineage,
            epoch: found.epoch,
            ended_ms: self.clock.wall_ms(),
            cut: request.inputs.iter().cloned().zip(found.cut.iter().copied()).collect(),
            changelog: partitions.iter().cloned().zip(positions.iter().copied()).collect(),
        };
        // A snapshot of the committed epoch itself says all of that already.
        let says_the_same = |there: &StateMeta| {
            let mut there = StateMeta {
                ended_ms: meta.ended_ms,
                ..there.clone()
            };
            // Where in its spill partition it was, it need not say.
            there.changelog.retain(|partition, _| partitions.contains(partition));
            there == meta
        };
        let there = backend.meta()?;
        let is_there = there.as_ref().is_some_and(says_the_same);
        let same_epoch = |there: &StateMeta| (there.lineage, there.epoch) == (meta.lineage, meta.epoch);
        if let Some(there) = there.filter(same_epoch) {
            let others = there
                .changelog
                .into_iter()
                .filter(|(partition, _)| !partitions.contains(partition));
            meta.changelog.extend(others);
        }
        meta.changelog.extend(found.spill.clone());
        // While the strategy changes the disk says where the changelogs were: a base snapshot of it leads there.
        let says_too_little = !matches!(found.decision, Decision::Current) || transition.is_under_way();
        if says_too_little && !is_there {
            backend.apply(&Overlay::new(&vec![false; request.stores.len()]), &meta)?;
        }
        self.count(&found.found, request.task, found.lineage, found.epoch);
        Ok(Opened {
            task: request.task,
            backend: Some(backend),
            cut: found.cut,
            lineage: found.lineage,
            epoch: found.epoch,
            changelog: positions,
            transition,
            since: found.pointer.as_ref().and_then(|pointer| pointer.since.clone()),
            chain: found.chain.or_else(|| {
                let base = found.pointer.as_ref().and_then(|pointer| pointer.state.base);
                // Increments that begin now do not say what was before them.
                let depth = match transition.is_under_way() {
                    true => UNKNOWN_DEPTH,
                    false => 0,
                };
                let chain = || Chain::committed(base, Vec::new(), depth, 0);
                transition.has_snapshots().then(chain)
            }),
            spill: found.spill,
            hashes: found.hashes,
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
    pub(super) fn restore(self: &Arc<Self>, found: Found) -> Result<Begun, NotOpened> {
        let admin = self.log.admin();
        let mut targets = Vec::new();
        let mut assignments = Vec::new();
        for (index, partition) in changelog_partitions(&found.request, found.transition)
            .into_iter()
            .enumerate()
        {
            let watermarks = admin.watermarks(&partition, ASK_TIMEOUT)?;
            targets.push(watermarks.high);
            let local = found.local.as_ref();
            let first = watermarks.low.max(found.first_offset(index));
            let from = match found.decision {
                Decision::Current => continue,
                Decision::Replay { .. } => match local.and_then(|local| local.changelog.get(&partition).copied()) {
                    Some(offset) => offset.max(0),
                    None => first,
                },
                Decision::Fresh | Decision::Rebuild { .. } => first,
            };
            let is_trimmed = found.transition.from == Durability::ChangelogAndSnapshot && from > 0;
            if from < first || (is_trimmed && matches!(found.decision, Decision::Rebuild { .. })) {
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
            return self.finish(found, targets).map(Begun::opened);
        }
        let replay = Replay::begin(Arc::clone(self), found, assignments, targets)?;
        Ok(Begun::Underway(Box::new(replay)))
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
pub(super) fn changelog_partitions(request: &OpenRequest, transition: Transition) -> Vec<TopicPartition> {
    let topic = |store: &StoreSpec| changelog::topic_name(&request.application_id, &store.name);
    let partition = |store: &StoreSpec| TopicPartition::new(topic(store), request.task.partition);
    match transition.has_changelogs() {
        true => request.stores.iter().map(partition).collect(),
        false => Vec::new(),
    }
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
