//! The worker itself, and its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use crate::ids::{Lineage, TaskId, TopicPartition};
use crate::log::{Consumer, GroupMetadata, GroupView, Isolation, Log, LogError, OutRecord, Producer};
use crate::planted::{Bug, planted};
use crate::time::Clock;
use crate::topology::Topology;

use super::background::{Background, Done};
use super::command::Command;
use super::epoch::{Action, EpochMachine, Facts, Limits};
use super::error::WorkerError;
use super::held::{CancelOnDrop, Hold, Moment, SealedEpoch, Tasks};
use super::metrics::WorkerMetrics;
use super::repository_work::RepositoryWork;
use super::savepoints::{SavepointWork, Stages};
use super::settings::WorkerSettings;
use super::snapshots::Repository;
use super::topics::Topics;

/// Records that one task processes before the next one has its turn.
const TASK_BUDGET: usize = 4_000;
/// The same of a task that lacks files of its state.
const LAZY_BUDGET: usize = 1;
/// Epochs of a task that may be sealed and not yet applied.
const APPLY_BACKLOG_MAX: usize = 2;
/// Longest wait for records when there is nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(10);
/// Longest wait for records while something else may end at any time.
const BUSY_WAIT: Duration = Duration::from_millis(1);

/// What a worker is made of.
pub struct WorkerParts {
    /// Settings.
    pub settings: WorkerSettings,
    /// The topology.
    pub topology: Arc<Topology>,
    /// Names and handles of all topics.
    pub topics: Arc<Topics>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Who applies and opens.
    pub background: Box<dyn Background>,
    /// The freshest group metadata that the client has.
    pub group: Arc<dyn GroupView>,
    /// What the instance says.
    pub commands: Receiver<Command>,
    /// Where committed offsets of repartition topics go, to be purged.
    pub purgeable: Sender<(TopicPartition, i64)>,
    /// The snapshot repository; `None` under strategy `changelog`.
    pub repository: Option<Arc<Repository>>,
    /// Where savepoints are asked for and stored; `None` where there are none.
    pub savepoints: Option<Arc<Repository>>,
    /// Makes lineages for tasks that have none.
    pub new_lineage: Box<dyn FnMut() -> Lineage + Send>,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Call again.
    Again,
    /// The worker was told to stop and has closed everything.
    Stopped,
}

/// The producer, or when to make the next one.
pub(super) enum Writer {
    Ready(Box<dyn Producer>),
    Broken { retry_at: Duration, attempts: u32 },
}

/// A commit under way.
pub(super) struct Committing {
    pub(super) epochs: Vec<SealedEpoch>,
    pub(super) began: Moment,
    pub(super) phase: Phase,
}

/// How far a commit is.
pub(super) enum Phase {
    /// Its increments are being stored.
    Storing {
        ticket: u64,
        /// Tells whoever stores them to give up.
        _cancelled: CancelOnDrop,
    },
    /// They are stored; what the group has said meanwhile has to be served.
    Stored,
    /// It was handed to the producer.
    Sent,
}

/// Why the worker ends an epoch early and takes no new records.
pub(super) enum Ending {
    Revoke {
        tasks: Vec<TaskId>,
        deadline: Duration,
        done: Sender<()>,
    },
    Stop {
        deadline: Duration,
    },
}

/// A worker. See the [module documentation](crate::worker).
pub struct Worker {
    pub(super) settings: WorkerSettings,
    pub(super) topology: Arc<Topology>,
    pub(super) plan: String,
    pub(super) topics: Arc<Topics>,
    pub(super) log: Arc<dyn Log>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) background: Box<dyn Background>,
    pub(super) group: Arc<dyn GroupView>,
    pub(super) captured: Option<GroupMetadata>,
    pub(super) new_lineage: Box<dyn FnMut() -> Lineage + Send>,
    pub(super) purgeable: Sender<(TopicPartition, i64)>,
    commands: Receiver<Command>,
    pub(super) consumer: Box<dyn Consumer>,
    /// Slot → task and input; replaced with every assignment.
    pub(super) slots: Vec<(TaskId, usize)>,
    pub(super) paused: Vec<bool>,
    pub(super) writer: Writer,
    /// Partition counts of the topics written, known once a producer was prepared.
    pub(super) out_partitions: Vec<i32>,
    pub(super) transaction_open: bool,
    pub(super) queue_full: bool,
    pub(super) tasks: Tasks,
    pub(super) epochs: EpochMachine,
    pub(super) committing: Option<Committing>,
    pub(super) ending: Option<Ending>,
    pub(super) tickets: u64,
    pub(super) aborts_in_a_row: u32,
    pub(super) applies_in_flight: usize,
    pub(super) repository: Option<Arc<Repository>>,
    pub(super) work: RepositoryWork,
    pub(super) savepoints: Option<Arc<Repository>>,
    pub(super) savepoint: SavepointWork,
    pub(super) log_trouble: BTreeMap<&'static str, Duration>,
    /// What the gauges have of this worker: bytes in overlays, bytes parked, records buffered.
    reported_load: [i64; 3],
}

impl Drop for Worker {
    /// Work beside the worker ends when nobody wants it any more, and the background waits for that: so what wants it goes first. Else
    /// an instance that fails while the object store is away would not end before it is back.
    fn drop(&mut self) {
        self.committing = None;
        self.tasks.clear();
    }
}

impl Worker {
    /// A worker without tasks. Makes its consumer; the producer follows in the first turn.
    ///
    /// # Errors
    /// [`WorkerError::Log`] where the client's configuration is refused.
    pub fn new(parts: WorkerParts) -> Result<Self, WorkerError> {
        let isolation = match planted(Bug::ReadUncommitted) {
            true => Isolation::ReadUncommitted,
            false => Isolation::ReadCommitted,
        };
        let consumer = parts
            .log
            .consumer(&parts.settings.name, isolation)
            .map_err(WorkerError::Log)?;
        let now = parts.clock.monotonic();
        let limits = Limits {
            interval: parts.settings.commit_interval,
            overlay_max_bytes: parts.settings.overlay_max_bytes,
            parked_max_bytes: parts.settings.parked_max_bytes,
            apply_backlog_max: APPLY_BACKLOG_MAX,
        };
        let stages = Stages::of(parts.topology.plan(), &parts.topics);
        Ok(Self {
            plan: parts.topology.fingerprint().to_owned(),
            settings: parts.settings,
            topology: parts.topology,
            topics: parts.topics,
            log: parts.log,
            clock: parts.clock,
            metrics: parts.metrics,
            background: parts.background,
            group: parts.group,
            captured: None,
            new_lineage: parts.new_lineage,
            purgeable: parts.purgeable,
            commands: parts.commands,
            consumer,
            slots: Vec::new(),
            paused: Vec::new(),
            writer: Writer::Broken {
                retry_at: now,
                attempts: 0,
            },
            out_partitions: Vec::new(),
            transaction_open: false,
            queue_full: false,
            tasks: Tasks::new(),
            epochs: EpochMachine::new(limits, now),
            committing: None,
            ending: None,
            tickets: 0,
            aborts_in_a_row: 0,
            applies_in_flight: 0,
            work: RepositoryWork::new(),
            savepoints: parts.savepoints,
            savepoint: SavepointWork::new(stages),
            repository: parts.repository,
            log_trouble: BTreeMap::new(),
            reported_load: [0; 3],
        })
    }

    /// The tasks that process records.
    pub fn running_tasks(&self) -> impl Iterator<Item = TaskId> {
        let running = self.tasks.iter().filter(|(_, stage)| stage.running().is_some());
        running.map(|(task, _)| *task)
    }

    /// One step: commands, the running commit, finished work, intake, processing, barrier. Waits at most a few
    /// milliseconds for records, and as long as the log's blocking calls take.
    ///
    /// # Errors
    /// [`WorkerError`]: the instance must stop. The open epoch is not committed.
    pub fn turn(&mut self) -> Result<Turn, WorkerError> {
        match self.take_turn() {
            Err(WorkerError::State(error)) if error.is_about_lacking_files() => {
                self.lacks_a_file(&error)?;
                Ok(Turn::Again)
            }
            outcome => outcome,
        }
    }

    fn take_turn(&mut self) -> Result<Turn, WorkerError> {
        self.serve_commands()?;
        self.collect_finished()?;
        self.mend_writer()?;
        self.open_waiting()?;
        self.poll_commit(Duration::ZERO)?;
        self.look_after_repository()?;
        self.look_after_savepoints();
        let facts = self.facts();
        self.report_load(&facts);
        let action = self.epochs.next(&facts);
        match action {
            Action::Process => {
                self.intake(self.intake_wait())?;
                self.process()?;
            }
            Action::Pause => {
                self.send_outputs()?;
                self.wait_for_something()?;
            }
            Action::Barrier => {
                self.barrier()?;
                self.send_outputs()?;
            }
            Action::Seal => self.seal_and_commit()?,
        }
        self.finish_ending()
    }

    /// This moment by both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            monotonic: self.clock.monotonic(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn serve_commands(&mut self) -> Result<(), WorkerError> {
        while self.ending.is_none() {
            match self.commands.try_recv() {
                Ok(command) => self.serve(command)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    // Whoever gave the commands is gone: nothing may be committed any more.
                    let deadline = self.clock.monotonic();
                    self.ending = Some(Ending::Stop { deadline });
                }
            }
        }
        Ok(())
    }

    fn facts(&self) -> Facts {
        let now = self.clock.monotonic();
        let mut facts = Facts {
            now,
            committing: self.committing.is_some(),
            forced: self.ending.is_some() || matches!(self.writer, Writer::Broken { .. }),
            ..Facts::default()
        };
        for running in self.tasks.values().filter_map(|stage| stage.running()) {
            facts.has_work |= running.has_work(now);
            facts.forced |= running.hold == Hold::Ending && running.has_work(now);
            facts.overlay_bytes += running.task.scope().state.active_bytes();
            facts.has_unsent |= running.has_unsent();
            facts.unsent_bytes += running.task.scope().outbox.bytes();
            facts.apply_backlog = facts.apply_backlog.max(running.unapplied);
        }
        let interesting = facts.has_work && !facts.committing;
        facts.may_commit = interesting && matches!(self.writer, Writer::Ready(_)) && self.group_is_served();
        facts
    }

    /// The gauges are sums over the workers of an instance, so each adds what has changed with it.
    fn report_load(&mut self, facts: &Facts) {
        let buffered = self.tasks.values().filter_map(|stage| stage.running());
        let buffered = buffered.map(|running| running.task.buffered()).sum();
        let parked = if facts.committing { facts.unsent_bytes } else { 0 };
        let load = [facts.overlay_bytes, parked, buffered];
        let metrics = &self.metrics;
        let gauges = [&metrics.overlay_bytes, &metrics.parked_bytes, &metrics.buffered_records];
        for ((gauge, reported), now) in gauges.into_iter().zip(&mut self.reported_load).zip(load) {
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            if now != *reported {
                gauge.add(now - *reported);
                *reported = now;
            }
        }
    }

    /// Whether the metadata captured with the last served event is still the client's (invariant I6).
    pub(super) fn group_is_served(&self) -> bool {
        let Some(captured) = &self.captured else { return false };
        captured.is_fencing() && (self.group.metadata() == *captured || planted(Bug::FreshMetadata))
    }

    fn intake_wait(&self) -> Duration {
        let busy = self.committing.is_some() || self.ending.is_some();
        let buffered =
            self.tasks.values().filter_map(|stage| stage.running()).any(|running| {
                running.task.buffered() > 0 && running.idle_since.is_none() && running.hold == Hold::Free
            });
        let has_work = self
            .tasks
            .values()
            .filter_map(|stage| stage.running())
            .any(|running| running.task.records_in_epoch() > 0);
        if buffered {
            Duration::ZERO
        } else if busy {
            BUSY_WAIT
        } else if has_work {
            self.epochs
                .until_due(self.clock.monotonic())
                .clamp(Duration::from_micros(200), IDLE_WAIT)
        } else {
            IDLE_WAIT
        }
    }

    /// Processing is paused: the commit or the background is what this waits for.
    fn wait_for_something(&mut self) -> Result<(), WorkerError> {
        let is_sent = |committing: &Committing| matches!(committing.phase, Phase::Sent);
        if self.committing.as_ref().is_some_and(is_sent) {
            return self.poll_commit(BUSY_WAIT);
        }
        if let Some(done) = self.background.wait(BUSY_WAIT) {
            self.take_done(done)?;
        }
        Ok(())
    }

    fn collect_finished(&mut self) -> Result<(), WorkerError> {
        while let Some(done) = self.background.poll() {
            self.take_done(done)?;
        }
        Ok(())
    }

    pub(super) fn take_done(&mut self, done: Done) -> Result<(), WorkerError> {
        match done {
            Done::Applied {
                task,
                epoch: _,
                took,
                result,
            } => {
                self.metrics.apply_latency.observe(took);
                self.metrics.apply_backlog.add(-1);
                self.applies_in_flight -= 1;
                result?;
                if let Some(running) = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut()) {
                    running.task.scope_mut().state.applied();
                    running.unapplied -= 1;
                }
                Ok(())
            }
            Done::Opened { task, ticket, result } => self.take_opened(task, ticket, *result),
            Done::Persisted { ticket, result } => self.take_persisted(ticket, result),
            Done::Spilled { ticket, result } => self.take_spilled(ticket, result),
            Done::Probed { ticket, result } => self.take_probed(ticket, result),
            Done::Snapshotted { task, ticket, result } => self.take_snapshotted(task, ticket, result),
            Done::Fetched { task, ticket, result } => self.take_fetched(task, ticket, result),
            Done::Collected(result) => {
                self.take_collected(result);
                Ok(())
            }
            Done::Retired(result) => {
                self.take_retired(result);
                Ok(())
            }
            Done::Settled => Ok(()),
            Done::Savepoint(done) => {
                self.take_savepoint(*done);
                Ok(())
            }
        }
    }

    /// Lets every task process a share of what waits, and hands outputs to the producer.
    fn process(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        let mut records = 0;
        let running = self.tasks.values_mut().filter_map(|stage| stage.running_mut());
        for running in running.filter(|running| running.hold == Hold::Free) {
            if running.task.buffered() == 0 {
                running.idle_since = None;
                continue;
            }
            // Each record may have to wait for a file: whatever is due in between is to have its time.
            let budget = if running.lazy.is_some() {
                LAZY_BUDGET
            } else {
                TASK_BUDGET
            };
            let done = running.task.process(budget)?;
            records += done.records;
            if done.waits_for_input && running.task.empty_inputs_are_caught_up() {
                let since = *running.idle_since.get_or_insert(now);
                running
                    .task
                    .allow_idle_inputs(now.saturating_sub(since) >= self.settings.max_task_idle);
            } else if done.waits_for_input {
                running.idle_since.get_or_insert(now);
            } else {
                running.idle_since = None;
            }
        }
        self.metrics.records_processed.add(records as u64);
        self.send_outputs()
    }

    /// Hands what the tasks have said to the producer, unless a commit is running: then it stays parked.
    pub(super) fn send_outputs(&mut self) -> Result<(), WorkerError> {
        if self.committing.is_some() {
            return Ok(());
        }
        let Writer::Ready(producer) = &mut self.writer else {
            return Ok(());
        };
        self.queue_full = false;
        let mut sent = 0;
        let mut failed = None;
        'tasks: for (id, stage) in &mut self.tasks {
            let Some(running) = stage.running_mut() else { continue };
            let topics = self.topics.sinks(id.sub_topology);
            let outbox = &running.task.scope().outbox;
            for entry in outbox.entries(running.sent) {
                if !self.transaction_open {
                    if let Err(error) = producer.begin() {
                        failed = Some(error);
                        break 'tasks;
                    }
                    self.transaction_open = true;
                }
                let record = OutRecord {
                    topic: topics[entry.sink as usize],
                    partition: entry.partition,
                    key: outbox.key(entry),
                    value: outbox.value(entry),
                    timestamp_ms: entry.timestamp_ms,
                    headers: &entry.headers,
                };
                match producer.send(&record) {
                    Ok(()) => running.sent += 1,
                    Err(LogError::QueueFull) if planted(Bug::FullQueueTakes) => running.sent += 1,
                    Err(error) => {
                        failed = Some(error);
                        break 'tasks;
                    }
                }
                sent += 1;
            }
            running.task.scope_mut().outbox.clear();
            running.sent = 0;
        }
        self.metrics.records_sent.add(sent);
        match failed {
            None => Ok(()),
            Some(LogError::QueueFull) => {
                self.queue_full = true;
                self.metrics.queue_full.add(1);
                Ok(())
            }
            Some(error) => self.writer_failed(error),
        }
    }

    /// Ends a revocation or a stop once nothing of the epoch is left.
    fn finish_ending(&mut self) -> Result<Turn, WorkerError> {
        let Some(ending) = &self.ending else {
            return Ok(Turn::Again);
        };
        let deadline = match ending {
            Ending::Revoke { deadline, .. } | Ending::Stop { deadline } => *deadline,
        };
        let idle = self.committing.is_none()
            && self
                .tasks
                .values()
                .filter_map(|stage| stage.running())
                .all(|running| running.task.records_in_epoch() == 0 && running.unapplied == 0);
        if !idle {
            // The instance says nothing more while it waits for this: it waits no longer, and the group may have moved on.
            let in_vain = matches!(ending, Ending::Revoke { .. }) && !self.commands.is_empty();
            if self.clock.monotonic() < deadline && !in_vain {
                return Ok(Turn::Again);
            }
            tracing::warn!(worker = %self.settings.name, "the epoch did not end in time and is aborted");
            self.roll_back("its owner could not wait any longer", true)?;
        }
        match self.ending.take() {
            Some(Ending::Revoke { tasks, done, .. }) => {
                self.close(&tasks)?;
                let _ = done.send(()); // Nobody waits any more if the instance is gone.
                Ok(Turn::Again)
            }
            Some(Ending::Stop { .. }) => {
                let all: Vec<TaskId> = self.tasks.keys().copied().collect();
                self.close(&all)?;
                Ok(Turn::Stopped)
            }
            None => Ok(Turn::Again),
        }
    }
}
