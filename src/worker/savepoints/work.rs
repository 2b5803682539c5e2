//! What a worker does about savepoints in its turns. Nothing here waits; what takes time goes on in a lane of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::savepoint::{Census, Failure, Marker, Request};
use crate::durability::snapshot::Attempt;
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::planted::{Bug, planted};
use crate::time::Millis;

use super::super::background::{self, Chore, Lane};
use super::super::held::{CancelOnDrop, Hold, Running};
use super::super::snapshots::{Repository, SnapshotError};
use super::super::worker::Worker;
use super::confirm::{ConfirmJob, Confirmed, Cut, confirm};
use super::freeze::{Freeze, FreezeJob, FrozenTask};
use super::look::{LookJob, View, look};
use super::stages::Stages;
use super::store::{StoreJob, StorePart};

/// Time between two looks while a savepoint is under way.
const QUICK_LOOK: Duration = Duration::from_millis(200);
/// Attempts that are remembered as given up, at most.
const REMEMBERED: usize = 16;

/// How far a task of this worker is.
enum Progress {
    Freezing(Marker),
    Frozen(FrozenTask),
    Confirmed(FrozenTask, Cut),
    Stored,
}

/// A savepoint that is under way.
struct Round {
    request: Request,
    /// Tasks of all workers that stand still.
    frozen: BTreeSet<TaskId>,
    /// Where the repartition inputs of this worker end.
    ends: BTreeMap<TopicPartition, i64>,
    tasks: BTreeMap<TaskId, Progress>,
    /// Since when tasks are held, and whether they still are.
    held_since: Option<Duration>,
    is_released: bool,
    /// Why nothing comes of it, to be told to the others.
    failure: Option<String>,
    cancelled: Arc<AtomicBool>,
    _cancel: CancelOnDrop,
}

impl Round {
    fn new(request: Request) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        Self {
            request,
            frozen: BTreeSet::new(),
            ends: BTreeMap::new(),
            tasks: BTreeMap::new(),
            held_since: None,
            is_released: false,
            failure: None,
            _cancel: CancelOnDrop(Arc::clone(&cancelled)),
            cancelled,
        }
    }

    /// What is to be done with a task that runs.
    fn hold(&self, stages: &Stages, task: TaskId, running: &Running, repartitions: &[TopicPartition]) -> Hold {
        let stands_at = Marker {
            task,
            lineage: running.task.lineage(),
            epoch: running.confirmed,
        };
        match self.tasks.get(&task) {
            _ if self.is_released => Hold::Free,
            Some(Progress::Freezing(marker)) if *marker == stands_at => Hold::Frozen,
            Some(Progress::Frozen(frozen)) if frozen.marker == stands_at => Hold::Frozen,
            Some(_) => Hold::Free,
            None if self.stage_has_come(stages, task, running, repartitions) => Hold::Ending,
            None => Hold::Free,
        }
    }

    /// Whether all that is written before this task is written, and this task has read it.
    fn stage_has_come(
        &self,
        stages: &Stages,
        task: TaskId,
        running: &Running,
        repartitions: &[TopicPartition],
    ) -> bool {
        if planted(Bug::SavepointWithoutStages) {
            return true;
        }
        let has_read = |partition: &TopicPartition| {
            let input = running.task.inputs().iter().find(|input| input.partition == *partition);
            let end = self.ends.get(partition);
            matches!((input, end), (Some(input), Some(end)) if input.cut() >= *end)
        };
        stages.has_come(task.sub_topology, &self.frozen) && repartitions.iter().all(has_read)
    }
}

/// How far the work is.
pub struct SavepointWork {
    stages: Arc<Stages>,
    /// Which interval of the wall clock was looked in, and when.
    looked_in: Option<Millis>,
    looked_at: Duration,
    is_busy: bool,
    /// Whether the last step stored a part.
    has_stored: bool,
    round: Option<Round>,
    given_up: Vec<Attempt>,
}

impl SavepointWork {
    pub fn new(stages: Stages) -> Self {
        Self {
            stages: Arc::new(stages),
            looked_in: None,
            looked_at: Duration::ZERO,
            is_busy: false,
            has_stored: false,
            round: None,
            given_up: Vec::new(),
        }
    }

    fn give_up(&mut self, attempt: Attempt) {
        self.round = None;
        self.given_up.push(attempt);
        if self.given_up.len() > REMEMBERED {
            self.given_up.remove(0);
        }
    }
}

/// What a step beside the worker came to.
pub enum Done {
    Looked(Result<View, SnapshotError>),
    Frozen(TaskId, Result<FrozenTask, SnapshotError>),
    Confirmed(Confirmed),
    Stored(TaskId, Result<u64, SnapshotError>),
    Failed(Attempt),
}

enum Step {
    Look(Box<LookJob>),
    Freeze(TaskId, Freeze),
    Confirm(ConfirmJob),
    Store(TaskId, Box<StorePart>),
    Fail(Arc<Repository>, Request, Failure),
}

impl Chore for Step {
    fn step(&mut self) -> Option<background::Done> {
        let done = match self {
            Step::Look(job) => Done::Looked(look(job)),
            Step::Freeze(task, freeze) => Done::Frozen(*task, freeze.step()?),
            Step::Confirm(job) => Done::Confirmed(confirm(job)),
            Step::Store(task, store) => Done::Stored(*task, store.step()?),
            Step::Fail(repository, request, failure) => {
                let object = request.folder().failure();
                match repository.store.create(&object, &failure.to_json()) {
                    Err(error) if error.is_passing() => {
                        tracing::debug!(%error, "a savepoint's failure is not told yet; nobody rests on it");
                    }
                    _ => {} // Another one may have told it before.
                }
                Done::Failed(request.attempt)
            }
        };
        Some(background::Done::Savepoint(Box::new(done)))
    }
}

impl Worker {
    /// Takes part in what is asked for.
    pub(in crate::worker) fn look_after_savepoints(&mut self) {
        let Some(repository) = self.savepoints.clone() else {
            return;
        };
        self.hold_tasks();
        if self.savepoint.is_busy || self.ending.is_some() {
            return;
        }
        let now = self.clock.monotonic();
        if let Some(step) = self.next_savepoint_step(&repository, now) {
            self.savepoint.is_busy = true;
            self.background.run(Lane::Savepoint, Box::new(step));
        }
    }

    /// Decides for each task whether it may process records.
    fn hold_tasks(&mut self) {
        let now = self.clock.monotonic();
        let timeout = self.settings.savepoints.timeout;
        let Some(round) = &mut self.savepoint.round else {
            for running in self.tasks.values_mut().filter_map(|stage| stage.running_mut()) {
                running.hold = Hold::Free;
            }
            return;
        };
        if round
            .held_since
            .is_some_and(|since| now.saturating_sub(since) >= timeout)
            && !round.is_released
        {
            round.is_released = true;
            let reason = format!("tasks stood still for {} ms (savepoint.timeout)", timeout.as_millis());
            round.failure.get_or_insert(reason);
        }
        let mut holds = false;
        for (task, stage) in &mut self.tasks {
            let Some(running) = stage.running_mut() else { continue };
            let repartitions = self.topics.repartition_inputs(*task);
            running.hold = match round.failure {
                Some(_) => Hold::Free,
                None => round.hold(&self.savepoint.stages, *task, running, &repartitions),
            };
            holds |= running.hold != Hold::Free;
        }
        if holds {
            round.held_since.get_or_insert(now);
        }
    }

    fn next_savepoint_step(&mut self, repository: &Arc<Repository>, now: Duration) -> Option<Step> {
        if let Some(step) = self.tell_failure(repository) {
            return Some(step);
        }
        if let Some(step) = self.freeze_next(repository) {
            return Some(step);
        }
        if let Some(step) = self.confirm_next() {
            return Some(step);
        }
        // In turns: a look that takes longer than the time between two of them must not keep anything from being stored.
        let looks_first = self.savepoint.has_stored;
        self.savepoint.has_stored = false;
        if looks_first && self.is_look_due(now) {
            return Some(self.look(repository, now));
        }
        if let Some(step) = self.store_next(repository) {
            self.savepoint.has_stored = true;
            return Some(step);
        }
        self.is_look_due(now).then(|| self.look(repository, now))
    }

    fn tell_failure(&mut self, repository: &Arc<Repository>) -> Option<Step> {
        let round = self.savepoint.round.as_ref()?;
        let reason = round.failure.clone()?;
        let by = self.writer_name(repository).to_string();
        let request = round.request.clone();
        warn!(savepoint = %request.name, reason, "nothing comes of a savepoint");
        self.metrics.savepoints_failed.add(1);
        Some(Step::Fail(Arc::clone(repository), request, Failure { by, reason }))
    }

    /// A task that is held and whose last epoch is committed and on its disk.
    fn freeze_next(&mut self, repository: &Arc<Repository>) -> Option<Step> {
        let round = self.savepoint.round.as_mut()?;
        let is_ready = |running: &Running| {
            let at_rest = running.task.records_in_epoch() == 0 && running.unapplied == 0;
            running.hold == Hold::Ending
                && running.confirmed > Epoch(0)
                && (at_rest || planted(Bug::SavepointBeforeCommit))
        };
        let ready = self.tasks.iter().find_map(|(task, stage)| {
            let running = stage.running().filter(|running| is_ready(running))?;
            (!round.tasks.contains_key(task)).then_some((*task, running))
        });
        let (task, running) = ready?;
        let marker = Marker {
            task,
            lineage: running.task.lineage(),
            epoch: running.confirmed,
        };
        let job = FreezeJob {
            repository: Arc::clone(repository),
            request: round.request.clone(),
            marker,
            backend: running.backend.clone(),
            stores: self.topology.plan().sub_topologies[usize::from(task.sub_topology)]
                .stores
                .clone(),
        };
        round.tasks.insert(task, Progress::Freezing(marker));
        Some(Step::Freeze(task, Freeze::new(job)))
    }

    /// Once all tasks of all workers stand still.
    fn confirm_next(&self) -> Option<Step> {
        let round = self.savepoint.round.as_ref()?;
        if round.is_released || round.frozen.len() < self.savepoint.stages.tasks().len() {
            return None;
        }
        let frozen = round.tasks.iter().filter_map(|(task, progress)| match progress {
            Progress::Frozen(frozen) => Some((frozen.marker, self.topics.inputs(*task))),
            _ => None,
        });
        let partitions = |inputs: Vec<(usize, TopicPartition)>| inputs.into_iter().map(|(_, input)| input).collect();
        Some(Step::Confirm(ConfirmJob {
            log: Arc::clone(&self.log),
            application_id: self.settings.application_id.clone(),
            tasks: frozen.map(|(marker, inputs)| (marker, partitions(inputs))).collect(),
        }))
    }

    /// All workers look at the same times, by the wall clock, so that none waits long for another one.
    fn is_look_due(&self, now: Duration) -> bool {
        match &self.savepoint.round {
            Some(_) => now.saturating_sub(self.savepoint.looked_at) >= QUICK_LOOK,
            None => self.savepoint.looked_in != Some(self.look_interval()),
        }
    }

    fn look_interval(&self) -> Millis {
        let poll_ms = Millis::try_from(self.settings.savepoints.poll.as_millis()).unwrap_or(Millis::MAX);
        self.clock.wall_ms().div_euclid(poll_ms.max(1))
    }

    fn look(&mut self, repository: &Arc<Repository>, now: Duration) -> Step {
        self.savepoint.looked_at = now;
        self.savepoint.looked_in = Some(self.look_interval());
        let stages = Arc::clone(&self.savepoint.stages);
        let running = self.tasks.iter().filter(|(_, stage)| stage.running().is_some());
        let round = self.savepoint.round.as_ref();
        let is_known = |partition: &TopicPartition| round.is_some_and(|round| round.ends.contains_key(partition));
        let wanted = running.flat_map(|(task, _)| {
            let inputs = self.topics.repartition_inputs(*task).into_iter();
            inputs.map(|partition| (task.sub_topology, partition))
        });
        let wanted = wanted.filter(|(_, partition)| !is_known(partition)).collect();
        Step::Look(Box::new(LookJob {
            repository: Arc::clone(repository),
            log: Arc::clone(&self.log),
            census: Census {
                application: self.settings.application_id.clone(),
                plan: self.plan.clone(),
                plan_text: self.topology.plan_text().to_owned(),
                tasks: stages.tasks().clone(),
            },
            wanted,
            known: round.map(|round| round.request.clone()),
            given_up: self.savepoint.given_up.clone(),
            stages,
        }))
    }

    fn store_next(&mut self, repository: &Arc<Repository>) -> Option<Step> {
        let writer = self.writer_name(repository).to_string();
        let round = self.savepoint.round.as_ref()?;
        let next = round.tasks.iter().find_map(|(task, progress)| match progress {
            Progress::Confirmed(frozen, cut) => Some((*task, frozen.clone(), cut.clone())),
            _ => None,
        });
        let (task, frozen, cut) = next?;
        let job = StoreJob {
            repository: Arc::clone(repository),
            request: round.request.clone(),
            frozen,
            cut,
            writer,
            cancelled: Arc::clone(&round.cancelled),
        };
        Some(Step::Store(task, Box::new(StorePart::new(job))))
    }

    pub(in crate::worker) fn take_savepoint(&mut self, done: Done) {
        self.savepoint.is_busy = false;
        match done {
            Done::Looked(Ok(view)) => self.take_view(view),
            Done::Looked(Err(error)) => self.note_trouble("savepoints", &error),
            Done::Frozen(task, result) => self.take_frozen(task, result),
            Done::Confirmed(confirmed) => self.take_confirmed(confirmed),
            Done::Stored(task, result) => self.take_stored(task, result),
            Done::Failed(attempt) => self.savepoint.give_up(attempt),
        }
        self.hold_tasks();
    }

    fn take_view(&mut self, view: View) {
        let Some(request) = view.request else {
            self.savepoint.round = None;
            return;
        };
        if self.savepoint.given_up.contains(&request.attempt) {
            return;
        }
        if let Some(failure) = view.failure {
            info!(savepoint = %request.name, by = failure.by, reason = failure.reason, "nothing comes of a savepoint");
            self.savepoint.give_up(request.attempt);
            return;
        }
        let is_new = self
            .savepoint
            .round
            .as_ref()
            .is_none_or(|round| round.request != request);
        if is_new {
            info!(savepoint = %request.name, worker = %self.settings.name, "a savepoint is asked for");
            self.savepoint.round = Some(Round::new(request));
        }
        if let Some(round) = &mut self.savepoint.round {
            round.frozen = view.frozen;
            round.ends.extend(view.ends);
        }
    }

    fn take_frozen(&mut self, task: TaskId, result: Result<FrozenTask, SnapshotError>) {
        let Some(round) = &mut self.savepoint.round else { return };
        match result {
            Ok(frozen) => {
                round.tasks.insert(task, Progress::Frozen(frozen));
            }
            Err(error) => {
                round.tasks.remove(&task);
                // What passes is tried again; so is a task that was rolled back before it was frozen.
                if !error.is_passing() && !matches!(error, SnapshotError::Cancelled) {
                    round
                        .failure
                        .get_or_insert(format!("task {task} cannot be frozen: {error}"));
                }
            }
        }
    }

    fn take_confirmed(&mut self, confirmed: Confirmed) {
        let now = self.clock.monotonic();
        let Some(round) = &mut self.savepoint.round else { return };
        match confirmed {
            Confirmed::Still(mut cuts) => {
                round.is_released = true;
                let held = round
                    .held_since
                    .map_or(Duration::ZERO, |since| now.saturating_sub(since));
                self.metrics.savepoint_held.observe(held);
                for (task, progress) in &mut round.tasks {
                    if let (Progress::Frozen(frozen), Some(cut)) = (&progress, cuts.remove(task)) {
                        *progress = Progress::Confirmed(frozen.clone(), cut);
                    }
                }
                info!(savepoint = %round.request.name, held_ms = held.as_millis() as u64, "all tasks stood still; going on");
            }
            Confirmed::Moved(reason) => {
                round.failure.get_or_insert(reason);
            }
            Confirmed::NoAnswer => {}
        }
    }

    fn take_stored(&mut self, task: TaskId, result: Result<u64, SnapshotError>) {
        let Some(round) = &mut self.savepoint.round else { return };
        match result {
            Ok(bytes) => {
                round.tasks.insert(task, Progress::Stored);
                self.metrics.savepoint_parts.add(1);
                self.metrics.savepoint_bytes.add(bytes);
                info!(%task, savepoint = %round.request.name, bytes, "part of a savepoint stored");
            }
            // The next attempt has other names.
            Err(error @ SnapshotError::NotAsWritten { .. }) => {
                warn!(%task, code = error.code(), %error, "a part is stored again")
            }
            Err(SnapshotError::Cancelled) => {}
            Err(error) => {
                round
                    .failure
                    .get_or_insert(format!("task {task} cannot be stored: {error}"));
            }
        }
    }
}
