//! What a worker does about the snapshot repository: stores increments before a commit, has base snapshots made, has deleted what nobody needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::durability::Durability;
use crate::durability::snapshot::{Chain, IncrementRef, PackId, Place, WriterName};
use crate::errors::Coded;
use crate::ids::TaskId;
use crate::planted::{Bug, planted};

use super::background::{Chore, Done, Lane};
use super::error::WorkerError;
use super::held::{Basing, CancelOnDrop, Moment, SealedEpoch};
use super::pack_uses::PackUses;
use super::snapshots::{
    Collect, CollectJob, Collection, KnownIncrements, Outdated, Persist, PersistJob, PersistTask, Persisted,
    Repository, Retire, RetireJob, SnapshotError, SnapshotJob, Snapshotted, Upload,
};
use super::spilling::Spilling;
use super::worker::{Phase, Worker};

/// Pause before another attempt at a base snapshot, at least.
const RETRY: Duration = Duration::from_secs(5);

/// How far the work is.
pub(super) struct RepositoryWork {
    /// Packs written so far.
    packs: u64,
    /// The task whose base snapshot is being made: one at a time, so that bandwidth goes to one of them.
    basing: Option<TaskId>,
    /// The packs that this worker has written and tasks still need.
    packs_used: PackUses,
    /// When the next look at the whole repository is due; `None` until the first turn.
    collect_at: Option<Duration>,
    is_collecting: bool,
    is_degraded: bool,
    pub(super) spilling: Spilling,
}

impl RepositoryWork {
    pub(super) fn new() -> Self {
        Self {
            packs: 0,
            basing: None,
            packs_used: PackUses::default(),
            collect_at: None,
            is_collecting: false,
            is_degraded: false,
            spilling: Spilling::default(),
        }
    }

    /// A commit was confirmed whose increments are in a pack. Those that it does not name, since the strategy is still changing, are needed, too.
    pub(super) fn note_pack(&mut self, epochs: &[SealedEpoch]) {
        let packed = epochs.iter().filter(|epoch| epoch.pack.is_some());
        let uses: Vec<_> = packed.map(|epoch| (epoch.end.task, epoch.end.epoch)).collect();
        if let Some(pack) = epochs.iter().find_map(|epoch| epoch.pack.clone()) {
            self.packs_used.add(pack, uses);
        }
    }

    /// A task is not this worker's any more.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.packs_used.forget(task);
    }
}

struct PersistChore(u64, Persist);
struct UploadChore(u64, TaskId, Upload);
struct CollectChore(Collect);
struct RetireChore(Retire);

impl Chore for PersistChore {
    fn step(&mut self) -> Option<Done> {
        let (ticket, result) = (self.0, self.1.step()?);
        Some(Done::Persisted { ticket, result })
    }
}

impl Chore for UploadChore {
    fn step(&mut self) -> Option<Done> {
        let (ticket, task, result) = (self.0, self.1, self.2.step()?);
        Some(Done::Snapshotted { task, ticket, result })
    }
}

impl Chore for RetireChore {
    fn step(&mut self) -> Option<Done> {
        self.0.step().map(Done::Retired)
    }
}

impl Chore for CollectChore {
    fn step(&mut self) -> Option<Done> {
        self.0.step().map(Done::Collected)
    }
}

impl Worker {
    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn writer_name(&self, repository: &Repository) -> WriterName {
        WriterName::new(&repository.instance, &self.settings.name)
    }

    /// The increments of sealed epochs, of those tasks that have written something.
    pub(super) fn persist_tasks(&self, epochs: &[SealedEpoch]) -> Vec<PersistTask> {
        let plan = self.topology.plan();
        let tasks = epochs.iter().filter_map(|epoch| {
            let running = self.tasks.get(&epoch.end.task)?.running()?;
            let stores = &plan.sub_topologies[epoch.end.task.sub_topology as usize].stores;
            epoch.persist_task(running, stores)
        });
        tasks.collect()
    }

    /// Whether the epoch that is being committed waits for the work with this ticket.
    pub(super) fn waits_for(&self, ticket: u64) -> bool {
        let phase = self.committing.as_ref().map(|committing| &committing.phase);
        matches!(phase, Some(Phase::Storing { ticket: ours, .. }) if *ours == ticket)
    }

    /// Has the increments of sealed epochs stored, where that is the strategy. What they name is what is stored in the end.
    pub(super) fn store_increments(&mut self, epochs: &[SealedEpoch]) -> Phase {
        let Some(repository) = self.repository.clone() else {
            return Phase::Stored;
        };
        let tasks = self.persist_tasks(epochs);
        if tasks.is_empty() {
            return Phase::Stored;
        }
        if self.work.spilling.is_away() && self.may_spill() {
            return self.spill(tasks);
        }
        self.work.packs += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = PersistJob {
            pack: PackId {
                writer: self.writer_name(&repository),
                sequence: self.work.packs,
                attempt: repository.attempt(),
            },
            plan: self.plan.clone(),
            tasks,
            cancelled: Arc::clone(&cancelled),
        };
        let ticket = self.ticket();
        self.background.run(
            Lane::Commit,
            Box::new(PersistChore(ticket, Persist::new(repository, job))),
        );
        Phase::Storing {
            ticket,
            _cancelled: CancelOnDrop(cancelled),
        }
    }

    pub(super) fn take_persisted(
        &mut self,
        ticket: u64,
        result: Result<Persisted, SnapshotError>,
    ) -> Result<(), WorkerError> {
        // A pack that is stored after its epoch was spilled is nobody's.
        if !self.waits_for(ticket) {
            return Ok(());
        }
        let persisted = match result {
            Ok(persisted) => persisted,
            Err(source) => return self.not_stored(source),
        };
        let Some(committing) = &mut self.committing else {
            return Ok(());
        };
        self.metrics.packs_stored.add(1);
        self.metrics.pack_bytes.add(persisted.bytes);
        let now = self.clock.monotonic();
        self.metrics
            .persist_latency
            .observe(now.saturating_sub(committing.began.monotonic));
        committing.phase = Phase::Stored;
        for (task, bytes) in persisted.tasks {
            let epoch = committing.epochs.iter_mut().find(|epoch| epoch.end.task == task);
            let running = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut());
            let (Some(epoch), Some(running)) = (epoch, running) else {
                continue;
            };
            let Some(chain) = &mut running.chain else { continue };
            let increment = IncrementRef {
                epoch: epoch.end.epoch,
                place: Place::Pack(persisted.pack.clone()),
            };
            chain.push(increment.clone(), bytes);
            epoch.pack = Some(persisted.pack.clone());
            if let Some(basing) = &running.basing {
                basing.increments.push(increment);
            }
            // A base that was made since the seal is named by the next commit.
            epoch.state.increment = chain.state_ref().increment.filter(|_| epoch.durability.has_packs());
        }
        self.set_degraded(false);
        Ok(())
    }

    pub(super) fn not_stored(&mut self, source: SnapshotError) -> Result<(), WorkerError> {
        if matches!(source, SnapshotError::Cancelled) || source.is_passing() {
            self.set_degraded(true);
            self.metrics.aborts.add(1);
            return self.roll_back(&source.to_string(), false);
        }
        let task = self
            .committing
            .as_ref()
            .and_then(|committing| committing.epochs.first());
        let Some(task) = task.map(|epoch| epoch.end.task) else {
            return Ok(());
        };
        Err(WorkerError::Snapshot { task, source })
    }

    /// An epoch whose increments are not stored, or not sent, in time is aborted: before the broker aborts its transaction, and long before
    /// what it stored may be deleted as nobody's (invariant I11). True if that has come.
    pub(super) fn give_up_late_epoch(&mut self) -> Result<bool, WorkerError> {
        let (Some(committing), Some(repository)) = (&self.committing, &self.repository) else {
            return Ok(false);
        };
        let timeout = repository.settings.persist_timeout;
        if matches!(committing.phase, Phase::Sent) || self.age(committing.began) < timeout {
            return Ok(false);
        }
        let reason = match committing.phase {
            Phase::Stored => "the group has moved on and its event was not served in time",
            _ => {
                self.set_degraded(true);
                "the object store has not taken the increments in time (snapshot.persist_timeout)"
            }
        };
        self.metrics.aborts.add(1);
        self.roll_back(reason, false)?;
        Ok(true)
    }

    /// Time since a moment, by that clock which says more: a machine that sleeps may stop one of them.
    pub(super) fn age(&self, since: Moment) -> Duration {
        let wall_ms = self.clock.wall_ms().saturating_sub(since.wall_ms);
        let wall = Duration::from_millis(u64::try_from(wall_ms).unwrap_or(0));
        self.clock.monotonic().saturating_sub(since.monotonic).max(wall)
    }

    /// Whether a base waits to be named that is so old by now that its files may be taken for nobody's.
    pub(super) fn has_stale_base(&self) -> bool {
        let Some(repository) = &self.repository else {
            return false;
        };
        let running = self.tasks.values().filter_map(|stage| stage.running());
        let unnamed = running.filter(|running| running.chain.as_ref().is_some_and(Chain::has_unnamed_base));
        let mut ages = unnamed.map(|running| self.age(running.base_began));
        ages.any(|age| age >= repository.settings.retention.grace / 2)
    }

    pub(super) fn set_degraded(&mut self, is_degraded: bool) {
        let is_degraded = is_degraded || self.work.spilling.is_away();
        if self.work.is_degraded != is_degraded {
            self.work.is_degraded = is_degraded;
            self.metrics.degraded.add(if is_degraded { 1 } else { -1 });
        }
    }

    /// Has a base snapshot made, or what nobody needs deleted, when it is time.
    pub(super) fn look_after_repository(&mut self) -> Result<(), WorkerError> {
        let Some(repository) = self.repository.clone() else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        if self.ending.is_some() {
            return Ok(());
        }
        let basing = self.work.basing.and_then(|task| self.tasks.get(&task)?.running());
        if basing.is_none_or(|running| running.basing.is_none()) {
            self.work.basing = None;
            self.begin_base(&repository, now);
        }
        self.look_for_store();
        // The first look comes as soon as what a former process has left over is old enough.
        let settings = &repository.settings;
        let first = || now + settings.collect_interval.min(settings.retention.grace);
        let due = *self.work.collect_at.get_or_insert_with(first);
        if !self.work.is_collecting && now >= due {
            self.begin_collection(&repository, now);
        }
        Ok(())
    }

    fn begin_base(&mut self, repository: &Arc<Repository>, now: Duration) {
        let limits = &repository.settings.limits;
        let due = self.tasks.iter().filter_map(|(task, stage)| {
            let running = stage.running()?;
            let since = now.saturating_sub(running.based_at);
            let chain = running.chain.as_ref()?;
            let wants_base = chain.wants_base(limits, since) || (running.lacks_base() && !chain.has_unnamed_base());
            let may = running.confirmed.0 > 0
                && running.base_not_before <= now
                && running.lazy.is_none()
                && running.may_have_base();
            (may && wants_base).then_some((since, *task))
        });
        // Where bases take longer than the interval leaves for all of them, each still has its turn.
        let Some((_, task)) = due.max_by_key(|(since, _)| *since) else {
            return;
        };
        let ticket = self.ticket();
        let writer = self.writer_name(repository).to_string();
        let plan = self.plan.clone();
        let stores = self.topology.plan().sub_topologies[task.sub_topology as usize]
            .stores
            .clone();
        let Some(running) = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut()) else {
            return;
        };
        let (Some(chain), Some(backend)) = (&mut running.chain, &running.backend) else {
            return;
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let increments = Arc::new(KnownIncrements::default());
        increments.set(chain.increments(), chain.depth());
        let job = SnapshotJob {
            task,
            lineage: running.task.lineage(),
            backend: Arc::clone(backend),
            hashes: Arc::clone(&running.hashes),
            stores,
            plan,
            writer,
            parent: chain.base(),
            increments: Arc::clone(&increments),
            cancelled: Arc::clone(&cancelled),
        };
        chain.begin_base();
        running.based_at = now;
        running.base_began = Moment {
            monotonic: now,
            wall_ms: self.clock.wall_ms(),
        };
        running.basing = Some(Basing {
            ticket,
            increments,
            _cancelled: CancelOnDrop(cancelled),
        });
        self.work.basing = Some(task);
        let upload = Upload::new(Arc::clone(repository), job);
        self.background
            .run(Lane::Idle, Box::new(UploadChore(ticket, task, upload)));
    }

    pub(super) fn take_snapshotted(
        &mut self,
        task: TaskId,
        ticket: u64,
        result: Result<Snapshotted, SnapshotError>,
    ) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        let Some(running) = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut()) else {
            return Ok(());
        };
        if running.basing.as_ref().is_none_or(|basing| basing.ticket != ticket) {
            return Ok(());
        }
        running.basing = None;
        let Some(chain) = &mut running.chain else { return Ok(()) };
        match result {
            Ok(snapshotted) => {
                self.metrics.snapshots.add(1);
                self.metrics.snapshot_bytes.add(snapshotted.uploaded_bytes);
                info!(%task, snapshot = %snapshotted.id, bytes = snapshotted.bytes, uploaded = snapshotted.uploaded_bytes, "base snapshot made");
                chain.add_base(snapshotted.id);
                running.has_new_base = true;
                running.trim = snapshotted.trim;
                if running.transition.to != Durability::ChangelogAndSnapshot {
                    // Changelogs that begin anew stay as they are, and so do those that nobody will need.
                    let spill = running.spill.as_ref().map(|(partition, _)| partition);
                    running.trim.retain(|partition, _| Some(partition) == spill);
                }
                running.outdated = Some(snapshotted.outdated);
                let at_once = running.outdated.take_if(|_| planted(Bug::RetireBeforeNamed));
                if planted(Bug::BaseNeedsNoName) {
                    chain.named(Some(snapshotted.id));
                }
                if let Some(outdated) = at_once {
                    self.retire(task, outdated);
                }
                self.set_degraded(false);
                Ok(())
            }
            Err(error) => {
                chain.base_failed();
                // Not at once again, however short the interval or long the chain is.
                running.base_not_before = now + RETRY;
                self.metrics.snapshots_failed.add(1);
                warn!(%task, code = error.code(), %error, "no base snapshot was made; it is tried again");
                self.set_degraded(true);
                Ok(())
            }
        }
    }

    /// Has deleted what a base has outdated that a commit has named.
    pub(super) fn retire(&mut self, task: TaskId, outdated: Outdated) {
        let Some(repository) = self.repository.clone() else {
            return;
        };
        let packs = self.work.packs_used.release(task, outdated.increments_upto);
        if packs.is_empty() && outdated.superseded.is_empty() {
            return;
        }
        let job = RetireJob {
            task,
            superseded: outdated.superseded,
            packs,
        };
        let retire = Retire::new(repository, job);
        self.background.run(Lane::Idle, Box::new(RetireChore(retire)));
    }

    pub(super) fn take_retired(&mut self, result: Result<Collection, SnapshotError>) {
        match result {
            Ok(collection) => self.metrics.objects_collected.add(collection.objects),
            Err(error) => {
                debug!(code = error.code(), %error, "what a base snapshot has superseded is left to the next look at the repository");
            }
        }
    }

    /// Each worker looks at the folders of its tasks; the one that has the application's first task looks at the packs as well.
    fn begin_collection(&mut self, repository: &Arc<Repository>, now: Duration) {
        self.work.collect_at = Some(now + repository.settings.collect_interval);
        let stateful = |task: &TaskId| {
            !self.topology.plan().sub_topologies[task.sub_topology as usize]
                .stores
                .is_empty()
        };
        let own = self
            .tasks
            .iter()
            .filter(|(task, stage)| stage.running().is_some() && stateful(task));
        let own: Vec<TaskId> = own.map(|(task, _)| *task).collect();
        let all = (0..self.topics.sub_topologies()).flat_map(|sub_topology| {
            (0..self.topics.tasks(sub_topology)).map(move |partition| TaskId {
                sub_topology,
                partition,
            })
        });
        let all: Vec<TaskId> = all.filter(stateful).collect();
        // Whatever the strategy is now, it may have been another one.
        let with_packs = all.first().is_some_and(|first| own.contains(first));
        if own.is_empty() {
            return;
        }
        let asked = if with_packs { &all } else { &own };
        let tasks = asked.iter().filter_map(|task| {
            let (_, input) = self.topics.inputs(*task).into_iter().next()?;
            Some((*task, input))
        });
        let job = CollectJob {
            log: Arc::clone(&self.log),
            application_id: self.settings.application_id.clone(),
            tasks: tasks.collect(),
            folders: own,
            with_packs,
        };
        self.work.is_collecting = true;
        let collect = Collect::new(Arc::clone(repository), job);
        self.background.run(Lane::Idle, Box::new(CollectChore(collect)));
    }

    pub(super) fn take_collected(&mut self, result: Result<Collection, SnapshotError>) {
        self.work.is_collecting = false;
        match result {
            Ok(collection) => {
                self.metrics.objects_collected.add(collection.objects);
                if collection.objects > 0 {
                    info!(
                        objects = collection.objects,
                        bytes = collection.bytes,
                        "deleted what nobody refers to"
                    );
                }
            }
            Err(error) => warn!(code = error.code(), %error, "nothing was deleted from the snapshot repository"),
        }
    }
}
