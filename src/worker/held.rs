//! The tasks that a worker holds, in whatever stage they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::info;

use crate::durability::snapshot::{Chain, PackId, SpilledIncrement, StateRef};
use crate::durability::{Beginning, CommitRecord, Durability, Pointer, Transition, changelog::StoreIncrement};
use crate::ids::{Epoch, StoreId, TaskId, TopicPartition};
use crate::log::{CommitOffset, OutBatch, OutTopic};
use crate::planted::{Bug, planted};
use crate::state::{StateBackend, StateMeta, StoreSpec};
use crate::task::{EpochEnd, Task};
use crate::time::Millis;

use super::background::ApplyJob;
use super::copying::Copying;
use super::metrics::WorkerMetrics;
use super::opener::UNKNOWN_DEPTH;
use super::snapshots::{FileHashes, KnownIncrements, Outdated, PersistTask};

/// A task and how far it is.
pub(super) enum Stage {
    /// To be opened as soon as the producer is there and the time has come.
    Waiting {
        /// Not before this time.
        from: Duration,
        /// The open database of a task that was rolled back.
        backend: Option<Arc<dyn StateBackend>>,
        /// What is known of a task that was rolled back.
        former: Former,
    },
    /// Being opened in the background.
    Opening {
        /// Ticket of the request.
        ticket: u64,
        /// As in [`Stage::Waiting`].
        former: Former,
        /// Tells the opener to give up.
        _cancelled: CancelOnDrop,
    },
    /// Processing records.
    Running(Box<Running>),
}

/// What a task that was rolled back is opened with. Nobody else has had it meanwhile.
#[derive(Default)]
pub(super) struct Former {
    /// Where it had begun; empty for one that has not run.
    pub(super) begun_at: Vec<i64>,
    /// What it had copied, where its strategy changes.
    pub(super) copying: Option<Copying>,
}

impl Stage {
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Stage::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(super) fn running_mut(&mut self) -> Option<&mut Running> {
        match self {
            Stage::Running(running) => Some(running),
            _ => None,
        }
    }
}

/// Tells an opener to give up when the task is not wanted any more.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A base snapshot that is being made.
pub(super) struct Basing {
    pub(super) ticket: u64,
    pub(super) increments: Arc<KnownIncrements>,
    /// Tells whoever makes it to give up.
    pub(super) _cancelled: CancelOnDrop,
}

/// Whether a savepoint holds a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// It processes records.
    #[default]
    Free,
    /// It takes no further records, and its epoch ends.
    Ending,
    /// It stands still: nothing of it is committed.
    Frozen,
}

/// Files that come while a task runs.
pub(super) struct LazyFiles {
    pub(super) ticket: u64,
    /// Tells whoever fetches them to give up.
    pub(super) _cancelled: CancelOnDrop,
    /// Until it is dropped the task counts as one that lacks files.
    pub(super) _counted: CountedAsLacking,
}

/// Counts a task whose strategy changes.
pub(super) struct CountedAsChanging(Arc<WorkerMetrics>);

impl CountedAsChanging {
    pub(super) fn begin(metrics: &Arc<WorkerMetrics>) -> Self {
        metrics.tasks_changing.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for CountedAsChanging {
    fn drop(&mut self) {
        self.0.tasks_changing.add(-1);
    }
}

/// Counts a task that lacks files.
pub(super) struct CountedAsLacking(Arc<WorkerMetrics>);

impl CountedAsLacking {
    pub(super) fn begin(metrics: &Arc<WorkerMetrics>) -> Self {
        metrics.tasks_lacking_files.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for CountedAsLacking {
    fn drop(&mut self) {
        self.0.tasks_lacking_files.add(-1);
    }
}

/// A task that processes records.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) backend: Option<Arc<dyn StateBackend>>,
    /// Offsets of the inputs when it was opened.
    pub(super) begun_at: Vec<i64>,
    /// The last epoch whose commit was confirmed, or read back from the group.
    pub(super) confirmed: Epoch,
    /// Per store, an offset of its changelog at or before everything that comes next.
    pub(super) changelog: Vec<i64>,
    /// Outbox entries that the producer has.
    pub(super) sent: usize,
    /// Sealed epochs that are not applied yet.
    pub(super) unapplied: usize,
    /// When its offsets were last put into a commit, or read.
    pub(super) sealed_at: Duration,
    /// The strategy of the last commit, and the one that is set.
    pub(super) transition: Transition,
    /// Until it is dropped the task counts as one whose strategy changes.
    pub(super) changing: Option<CountedAsChanging>,
    /// Whether a base snapshot was made since it was opened.
    pub(super) has_new_base: bool,
    /// What of its rows is copied, where the strategy changes to `changelog`.
    pub(super) copying: Option<Copying>,
    /// As in [`Pointer::since`].
    pub(super) since: Option<Beginning>,
    /// Where the changelogs were when it was opened, and at which epoch.
    pub(super) opened_at: Beginning,
    /// Its state in the repository; `None` where there is none.
    pub(super) chain: Option<Chain>,
    /// Its partition of the spill topic, and an offset there at or before everything that comes next; `None` where nothing is spilled.
    pub(super) spill: Option<(TopicPartition, i64)>,
    /// What is known of the files of its database.
    pub(super) hashes: Arc<FileHashes>,
    /// When its last base snapshot was begun, and the one that is being made.
    pub(super) based_at: Duration,
    /// After an attempt that failed the next one comes no earlier.
    pub(super) base_not_before: Duration,
    pub(super) base_began: Moment,
    pub(super) basing: Option<Basing>,
    /// Where its database lacks files: who fetches them.
    pub(super) lazy: Option<LazyFiles>,
    /// How far its changelogs can be trimmed once a commit has named its base.
    pub(super) trim: BTreeMap<TopicPartition, i64>,
    /// What may be deleted then.
    pub(super) outdated: Option<Outdated>,
    /// Since when it waits for an input that is caught up and empty.
    pub(super) idle_since: Option<Duration>,
    /// Whether a savepoint holds it.
    pub(super) hold: Hold,
}

/// The broker forgets offsets of topics that no member subscribes to, and members subscribe to lead topics only: a task
/// without work commits its inputs again after this time.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(3600);

impl Running {
    /// Whether the next epoch has to include this task: its inputs moved on, it has a base snapshot to name, or nothing was committed for long.
    pub(super) fn has_work(&self, now: Duration) -> bool {
        match self.hold {
            Hold::Free => {}
            // Without a commit nothing would say where a task begins.
            Hold::Ending => return self.task.records_in_epoch() > 0 || self.confirmed == Epoch(0),
            Hold::Frozen => return false,
        }
        let names_a_base = self.chain.as_ref().is_some_and(Chain::has_unnamed_base);
        self.task.has_moved()
            || names_a_base
            || self.copying.is_some()
            || self.begins_packs()
            || now.saturating_sub(self.sealed_at) >= IDLE_COMMIT_INTERVAL
    }

    /// Whether the strategy changes and a base snapshot has to be made for that.
    pub(super) fn lacks_base(&self) -> bool {
        self.transition.needs_base() && !self.has_new_base
    }

    /// Whether the strategy changes to `snapshot` and no increment is in the object store yet. The first one is stored even if it is empty, and bases come
    /// after it: so increments lead back to the base, as they always do.
    pub(super) fn begins_packs(&self) -> bool {
        let has_none = |chain: &Chain| chain.depth() == UNKNOWN_DEPTH;
        let begins = self.transition.is_under_way() && self.transition.to.has_packs();
        begins && self.chain.as_ref().is_some_and(has_none)
    }

    /// Whether a base snapshot may be made as far as a change of the strategy is concerned.
    pub(super) fn may_have_base(&self) -> bool {
        let begins = self.transition.is_under_way() && self.transition.to.has_packs();
        !begins || (!self.begins_packs() && self.unapplied == 0)
    }

    /// The strategy of the commit that ends the epoch that is being sealed, and where the changelogs begin then.
    fn arrive(&mut self) -> (Durability, Option<Beginning>) {
        let Transition { from, to } = self.transition;
        let copied = self.copying.as_mut().and_then(Copying::seal);
        let is_complete = match to {
            Durability::Changelog => copied.is_some(),
            _ => self.has_new_base,
        };
        let is_complete = is_complete || planted(Bug::ArriveEarly);
        if !self.transition.is_under_way() || !is_complete {
            return (from, self.since.clone());
        }
        let since = match (from, to) {
            (_, Durability::Snapshot) => None,
            (_, Durability::Changelog) => copied,
            (Durability::Snapshot, Durability::ChangelogAndSnapshot) => Some(self.opened_at.clone()),
            (_, Durability::ChangelogAndSnapshot) => self.since.clone(),
        };
        (to, since)
    }

    /// A commit has named the strategy `durability`: true if it is the new one.
    pub(super) fn arrived(&mut self, durability: Durability, since: Option<Beginning>) -> bool {
        if let Some(copying) = &mut self.copying {
            copying.confirm();
        }
        if durability == self.transition.from {
            return false;
        }
        let rows = self.copying.as_ref().map_or(0, Copying::rows);
        info!(task = %self.task.id(), durability = durability.word(), copied_rows = rows, "the strategy has changed");
        self.transition = Transition::none(durability);
        self.changing = None;
        self.since = since;
        self.copying = None;
        if !durability.has_snapshots() {
            (self.chain, self.basing) = (None, None);
            self.trim.clear();
            self.outdated = None;
        }
        if let Some(chain) = self.chain.as_mut().filter(|_| !durability.has_packs()) {
            chain.forget_increments();
        }
        true
    }

    /// Whether outputs wait to be handed to the producer.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.task.scope().outbox.len()
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) monotonic: Duration,
    pub(super) wall_ms: Millis,
}

/// An epoch of one task on its way through the commit.
pub(super) struct SealedEpoch {
    pub(super) end: EpochEnd,
    pub(super) meta: StateMeta,
    plan: String,
    /// The strategy that its commit is made under.
    pub(super) durability: Durability,
    /// As in [`Pointer::since`].
    pub(super) since: Option<Beginning>,
    /// Where its state is stored.
    pub(super) state: StateRef,
    /// Per store, records in the changelog batch.
    written: Vec<usize>,
    /// The pack that its increment is in.
    pub(super) pack: Option<PackId>,
    /// Its increment, where the object store did not take it.
    pub(super) spilled: Option<SpilledIncrement>,
}

impl SealedEpoch {
    /// Seals the epoch of a task whose stores have the given changelog partitions.
    pub(super) fn seal(
        running: &mut Running,
        changelogs: &[TopicPartition],
        plan: &str,
        is_transactional: bool,
        now: Moment,
    ) -> Self {
        let changelogs = match running.transition.has_changelogs() {
            true => changelogs,
            false => &[],
        };
        let (durability, since) = running.arrive();
        let end = running.task.seal();
        running.sealed_at = now.monotonic;
        let stores = changelogs.len();
        let written: Vec<usize> = (0..stores)
            .map(|store| end.increment.store_len(StoreId(store as u16)))
            .collect();
        for (offset, written) in running.changelog.iter_mut().zip(&written) {
            // Each record takes an offset, and so does the marker that ends the transaction, if there is one. Aborted
            // records of others take more, so this stays at or before the true end: replaying from it is safe.
            let marker = i64::from(is_transactional);
            *offset += if *written > 0 { *written as i64 + marker } else { 0 };
            *offset += i64::from(planted(Bug::ChangelogTooFar));
        }
        let meta = StateMeta {
            lineage: end.lineage,
            epoch: end.epoch,
            ended_ms: now.wall_ms,
            cut: end.cut.clone(),
            changelog: changelogs
                .iter()
                .cloned()
                .zip(running.changelog.iter().copied())
                .chain(running.spill.clone())
                .collect(),
        };
        running.unapplied += 1;
        let chain = running.chain.as_mut().filter(|_| !end.increment.is_empty());
        chain.into_iter().for_each(Chain::note_change);
        let mut state = running.chain.as_ref().map(Chain::state_ref).unwrap_or_default();
        state.increment = state.increment.filter(|_| durability.has_packs());
        state.base = state.base.filter(|_| durability.has_snapshots());
        Self {
            durability,
            since,
            state,
            end,
            meta,
            plan: plan.to_owned(),
            written,
            pack: None,
            spilled: None,
        }
    }

    /// The offsets to commit, each with the pointer to the state at this cut.
    pub(super) fn offsets(&self) -> impl Iterator<Item = CommitOffset> + '_ {
        let pointer = Pointer {
            lineage: self.end.lineage,
            epoch: self.end.epoch,
            plan: self.plan.clone(),
            durability: self.durability,
            state: self.state.clone(),
            since: self.since.clone(),
        };
        let metadata = pointer.to_metadata();
        let inputs = if planted(Bug::ForgetOtherInputs) { 1 } else { usize::MAX };
        self.end
            .cut
            .iter()
            .take(inputs)
            .map(move |(partition, offset)| CommitOffset {
                partition: partition.clone(),
                offset: *offset,
                metadata: metadata.clone(),
            })
    }

    /// The changelog batches of the epoch.
    pub(super) fn batches<'a>(&'a self, topics: &'a [OutTopic]) -> impl Iterator<Item = OutBatch> + 'a {
        let stores = topics.iter().copied().enumerate();
        stores
            .filter(|(store, _)| self.written.get(*store).is_some_and(|written| *written > 0))
            .map(|(store, topic)| OutBatch {
                topic,
                partition: self.end.task.partition,
                records: Arc::new(StoreIncrement::new(
                    Arc::clone(&self.end.increment),
                    StoreId(store as u16),
                )),
            })
    }

    /// The increment on its way to the spill topic `topic`.
    pub(super) fn spilled_batch(&self, topic: Option<OutTopic>) -> Option<OutBatch> {
        let increment = self.spilled.clone()?;
        Some(OutBatch {
            topic: topic?,
            partition: self.end.task.partition,
            records: Arc::new(increment),
        })
    }

    /// The full form of the pointer.
    pub(super) fn commit_record(&self) -> CommitRecord {
        CommitRecord {
            task: self.end.task,
            lineage: self.end.lineage,
            epoch: self.end.epoch,
            plan: self.plan.clone(),
            cut: self.end.cut.clone(),
            changelog: self.meta.changelog.clone(),
            durability: self.durability,
            state: self.state.clone(),
            since: self.since.clone(),
        }
    }

    /// The increment as it goes to the object store; `None` where nothing was written.
    pub(super) fn persist_task(&self, running: &Running, stores: &[StoreSpec]) -> Option<PersistTask> {
        let is_wanted = !self.end.increment.is_empty() || running.begins_packs();
        let chain = running
            .chain
            .as_ref()
            .filter(|_| running.transition.has_packs() && is_wanted)?;
        Some(PersistTask {
            task: self.end.task,
            meta: self.meta.clone(),
            stores: stores.iter().map(|store| store.name.clone()).collect(),
            increment: Arc::clone(&self.end.increment),
            links: chain.links(),
            depth: chain.depth(),
            after_base: (chain.len() as u64, chain.bytes()),
        })
    }

    /// The job that brings the epoch to the local database.
    pub(super) fn apply_job(self, backend: &Arc<dyn StateBackend>) -> ApplyJob {
        ApplyJob {
            task: self.end.task,
            backend: Arc::clone(backend),
            increment: self.end.increment,
            meta: self.meta,
        }
    }
}

/// The commit records of an epoch as one batch for the commits topic.
pub(super) struct CommitRecords(pub(super) Vec<(String, Vec<u8>)>);

impl crate::log::BatchSource for CommitRecords {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        for (key, value) in &self.0 {
            visit(key.as_bytes(), Some(value));
        }
    }
}

/// All tasks of a worker, in order of their ids.
pub(super) type Tasks = BTreeMap<TaskId, Stage>;
