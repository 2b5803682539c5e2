//! The commit of an epoch, and the way back when it fails (design §4, invariants I1–I6).

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::ids::{TaskId, TopicPartition};
use crate::invariants::{self, Handle, Violation};
use crate::log::{Commit, CommitOffset, LogError, OutBatch};
use crate::planted::{Bug, planted};
use crate::task::EpochEnd;

use super::error::WorkerError;
use super::held::{CommitRecords, Former, SealedEpoch, Stage};
use super::worker::{Committing, Phase, Worker, Writer};

/// Aborts in a row after which the pause before the next attempt stops growing.
const ABORT_BACK_OFF_STEPS: u32 = 6;

impl Worker {
    /// The barrier passes through every task that did something in this epoch.
    pub(super) fn barrier(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        for running in self.tasks.values_mut().filter_map(|stage| stage.running_mut()) {
            if running.has_work(now) {
                running.task.barrier()?;
                // A database that lacks files is read by nobody who need not.
                if let Some(copying) = running.copying.as_mut().filter(|_| running.lazy.is_none()) {
                    let bytes = self.settings.copy_slice_bytes.min(self.settings.overlay_max_bytes / 4);
                    copying.copy_slice(&mut running.task.scope_mut().state, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Seals the epoch of every task that did something, and starts the commit.
    pub(super) fn seal_and_commit(&mut self) -> Result<(), WorkerError> {
        self.observe_progress();
        if self.has_stale_base() {
            return self.roll_back("a base snapshot grew old before a commit named it", false);
        }
        let now = self.moment();
        let is_transactional = self.settings.transactional_id.is_some();
        let mut epochs = Vec::new();
        for (id, stage) in &mut self.tasks {
            let Some(running) = stage.running_mut() else { continue };
            if running.has_work(now.monotonic) {
                let changelogs = changelog_partitions(&self.topics, *id);
                let epoch = SealedEpoch::seal(running, &changelogs, &self.plan, is_transactional, now);
                if planted(Bug::ApplyBeforeCommit)
                    && let Some(backend) = &running.backend
                {
                    backend.apply(&*epoch.end.increment, &epoch.meta)?;
                }
                epochs.push(epoch);
            }
        }
        let phase = self.store_increments(&epochs);
        let began = now;
        self.committing = Some(Committing { epochs, began, phase });
        self.send_commit()
    }

    /// Hands the commit to the producer once everything is stored that it names, and the group is served.
    pub(super) fn send_commit(&mut self) -> Result<(), WorkerError> {
        let Some(mut group) = self.captured.clone() else {
            return Ok(());
        };
        let Some(committing) = self
            .committing
            .take_if(|committing| matches!(committing.phase, Phase::Stored))
        else {
            return Ok(());
        };
        let epochs = committing.epochs;
        if planted(Bug::FreshMetadata) {
            group = self.group.metadata();
        }
        self.hold(invariants::metadata_fences(Handle {
            generation: group.generation,
            member_id: &group.member_id,
        }))?;
        let mut batches: Vec<OutBatch> = Vec::new();
        let mut offsets: Vec<CommitOffset> = Vec::new();
        let mut records = Vec::new();
        for epoch in &epochs {
            let sub_topology = epoch.end.task.sub_topology;
            batches.extend(epoch.batches(self.topics.changelogs(sub_topology)));
            batches.extend(epoch.spilled_batch(self.topics.spill(sub_topology)));
            let of_epoch = offsets.len();
            offsets.extend(epoch.offsets());
            self.check_epoch(&epoch.end, &offsets[of_epoch..])?;
            records.push((epoch.end.task.to_string(), epoch.commit_record().to_json()));
            if planted(Bug::PurgeBeforeCommit) {
                self.offer_purge(epoch);
            }
        }
        batches.push(OutBatch {
            topic: self.topics.commits(),
            partition: 0,
            records: Arc::new(CommitRecords(records)),
        });
        self.committing = Some(Committing {
            epochs,
            phase: Phase::Sent,
            ..committing
        });
        let commit = Commit {
            batches,
            offsets,
            group,
            timeout: self.settings.transaction_timeout,
        };
        let begun = self.start(commit);
        match begun {
            Ok(()) => Ok(()),
            Err(error) => self.commit_failed(error),
        }
    }

    /// Invariants I3 and I5, before anything is sent.
    fn check_epoch(&self, end: &EpochEnd, offsets: &[CommitOffset]) -> Result<(), WorkerError> {
        let Some(running) = self.tasks.get(&end.task).and_then(|stage| stage.running()) else {
            return Ok(());
        };
        self.hold(invariants::offsets_follow_confirmed_end(running.confirmed, end.epoch))?;
        let inputs = running.task.inputs().iter();
        let inputs: Vec<&TopicPartition> = inputs.map(|input| &input.partition).collect();
        let committed: Vec<_> = offsets.iter().map(|offset| (&offset.partition, end.epoch)).collect();
        self.hold(invariants::every_input_is_committed(&inputs, &committed))
    }

    fn hold(&self, check: Result<(), Violation>) -> Result<(), WorkerError> {
        self.metrics.hold(&self.settings.name, check)
    }

    fn start(&mut self, commit: Commit) -> Result<(), LogError> {
        let Writer::Ready(producer) = &mut self.writer else {
            return Err(LogError::Fatal {
                operation: "commit".into(),
                reason: "the producer is gone".into(),
            });
        };
        if !self.transaction_open {
            producer.begin()?;
            self.transaction_open = true;
        }
        producer.start_commit(commit)
    }

    /// Looks whether the running commit has ended; waits for that at most `wait`.
    pub(super) fn poll_commit(&mut self, wait: Duration) -> Result<(), WorkerError> {
        if self.give_up_late_epoch()? {
            return Ok(());
        }
        self.spill_late_epoch();
        match self.committing.as_ref().map(|committing| &committing.phase) {
            Some(Phase::Sent) => {}
            // Nothing was sent yet, so the group may still move on; then its event is served first (invariant I6).
            Some(Phase::Stored) if self.group_is_served() => return self.send_commit(),
            _ => return Ok(()),
        }
        let Writer::Ready(producer) = &mut self.writer else {
            return Ok(());
        };
        match producer.poll_commit(wait) {
            None if planted(Bug::SentIsConfirmed) => self.committed(),
            None => Ok(()),
            Some(Err(LogError::TimedOut { .. })) if planted(Bug::NoAnswerIsSuccess) => self.committed(),
            Some(Ok(())) => self.committed(),
            Some(Err(error)) => self.commit_failed(error),
        }
    }

    fn committed(&mut self) -> Result<(), WorkerError> {
        self.transaction_open = false;
        self.aborts_in_a_row = 0;
        let Some(committing) = self.committing.take() else {
            return Ok(());
        };
        self.metrics.commits.add(1);
        let now = self.clock.monotonic();
        let took = now.saturating_sub(committing.began.monotonic);
        self.epochs.committed(now, took);
        self.metrics.commit_latency.observe(took);
        self.work.note_pack(&committing.epochs);
        let mut outdated = Vec::new();
        let mut arrived = Vec::new();
        for epoch in committing.epochs {
            self.metrics.records_committed.add(epoch.end.records);
            self.count_nodes(&epoch);
            self.offer_purge(&epoch);
            let Some(running) = self
                .tasks
                .get_mut(&epoch.end.task)
                .and_then(|stage| stage.running_mut())
            else {
                continue;
            };
            running.confirmed = epoch.end.epoch;
            if let Some(chain) = &mut running.chain {
                chain.named(epoch.state.base);
                if !chain.has_unnamed_base() {
                    outdated.extend(running.outdated.take().map(|what| (epoch.end.task, what)));
                    for trim in std::mem::take(&mut running.trim) {
                        let _ = self.purgeable.try_send(trim); // The next base offers it again.
                    }
                }
            }
            if running.arrived(epoch.durability, epoch.since.clone()) {
                arrived.push((epoch.end.task, epoch.durability));
            }
            match &running.backend {
                Some(backend) if !planted(Bug::ApplyBeforeCommit) => {
                    self.metrics.apply_backlog.add(1);
                    let job = epoch.apply_job(backend);
                    self.applies_in_flight += 1;
                    self.background.apply(job);
                }
                _ => {
                    running.task.scope_mut().state.applied();
                    running.unapplied -= 1;
                }
            }
        }
        for (task, outdated) in outdated {
            self.retire(task, outdated);
        }
        for (task, durability) in arrived {
            self.strategy_changed(task, durability);
        }
        self.send_outputs()
    }

    fn count_nodes(&self, epoch: &SealedEpoch) {
        let nodes = &self.topology.plan().nodes;
        for (node, counts) in nodes.iter().zip(&epoch.end.counts) {
            if *counts != Default::default() {
                self.metrics.add_node_counts(&node.name, *counts);
            }
        }
    }

    fn offer_purge(&self, epoch: &SealedEpoch) {
        let sub = epoch.end.task.sub_topology;
        for (source, topic) in self.topics.sources(sub).iter().enumerate() {
            let partition = TopicPartition::new(Arc::clone(topic), epoch.end.task.partition);
            if self.topics.is_repartition(sub, source)
                && let Some(offset) = epoch.end.cut.get(&partition)
            {
                let _ = self.purgeable.try_send((partition, *offset)); // The next commit offers it again.
            }
        }
    }

    fn commit_failed(&mut self, error: LogError) -> Result<(), WorkerError> {
        match &error {
            LogError::IllegalGeneration { .. } | LogError::Abort { .. } | LogError::NotAMember { .. } => {
                self.metrics.aborts.add(1);
                self.roll_back(&error.to_string(), false)
            }
            _ => self.writer_failed(error),
        }
    }

    /// The producer cannot be used any more: the worker makes a new one and goes back to the committed cut.
    pub(super) fn writer_failed(&mut self, error: LogError) -> Result<(), WorkerError> {
        match &error {
            LogError::Fenced { .. } => self.metrics.fenced.add(1),
            LogError::TimedOut { .. } | LogError::Unreachable { .. } => self.metrics.unknown_commits.add(1),
            LogError::Abort { .. } => {
                self.metrics.aborts.add(1);
                return self.roll_back(&error.to_string(), false);
            }
            LogError::RecordTooLarge { .. } | LogError::UnknownTopic { .. } | LogError::Refused { .. } => {
                return Err(WorkerError::Log(error));
            }
            _ => {}
        }
        self.metrics.aborts.add(1);
        self.roll_back(&error.to_string(), true)
    }

    /// Drops the open epoch and the one that did not commit; every task is opened again at its committed cut.
    /// The producer is replaced if `replace_writer`, else its transaction is aborted.
    pub(super) fn roll_back(&mut self, reason: &str, replace_writer: bool) -> Result<(), WorkerError> {
        warn!(worker = %self.settings.name, reason, "epoch aborted; going back to the committed cut");
        if self.committing.take().is_some() {
            let running = self.tasks.values().filter_map(|stage| stage.running());
            let parked = running.map(|running| running.task.scope().outbox.len() - running.sent);
            self.metrics.parked_dropped.add(parked.sum::<usize>() as u64);
        }
        let now = self.clock.monotonic();
        self.aborts_in_a_row = (self.aborts_in_a_row + 1).min(ABORT_BACK_OFF_STEPS);
        let from = now + Duration::from_millis(5 << self.aborts_in_a_row);
        let keeps = planted(Bug::KeepTransaction) && !replace_writer;
        let aborted = match &mut self.writer {
            Writer::Ready(_) if keeps => Ok(()),
            Writer::Ready(producer) if !replace_writer && self.transaction_open => {
                producer.abort(self.settings.transaction_timeout)
            }
            Writer::Ready(_) if !replace_writer => Ok(()),
            _ => Err(LogError::QueueFull),
        };
        if aborted.is_err() {
            self.writer = Writer::Broken {
                retry_at: now,
                attempts: 0,
            };
        }
        self.transaction_open &= keeps;
        self.queue_full = false;
        self.epochs.reset(now);
        if !planted(Bug::SkipDrain) {
            self.drain_applies()?;
        }
        for stage in self.tasks.values_mut() {
            if let Stage::Running(running) = stage {
                *stage = Stage::Waiting {
                    from,
                    backend: running.backend.take(),
                    former: Former {
                        begun_at: std::mem::take(&mut running.begun_at),
                        copying: running.copying.take(),
                    },
                };
                self.metrics.tasks_running.add(-1);
                self.metrics.tasks_opening.add(1);
            }
        }
        self.assign_inputs()
    }

    /// Waits until every committed epoch is in its database.
    pub(super) fn drain_applies(&mut self) -> Result<(), WorkerError> {
        while self.applies_in_flight > 0 {
            if let Some(done) = self.background.wait(Duration::from_millis(100)) {
                self.take_done(done)?;
            }
        }
        Ok(())
    }

    /// Makes a producer if there is none. **Blocks** while it is initialised (invariant I7: before any offset is read).
    pub(super) fn mend_writer(&mut self) -> Result<(), WorkerError> {
        let Writer::Broken { retry_at, attempts } = self.writer else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        if now < retry_at {
            return Ok(());
        }
        let made = self.make_producer();
        match made {
            Ok(()) => Ok(()),
            Err(error @ (LogError::Unreachable { .. } | LogError::TimedOut { .. } | LogError::Fenced { .. })) => {
                self.note_trouble("producer", &error);
                let pause = Duration::from_millis(50 << attempts.min(5));
                self.writer = Writer::Broken {
                    retry_at: self.clock.monotonic() + pause,
                    attempts: attempts + 1,
                };
                Ok(())
            }
            Err(error) => Err(WorkerError::Log(error)),
        }
    }

    fn make_producer(&mut self) -> Result<(), LogError> {
        // A dead producer is dropped before its successor is initialised.
        self.writer = Writer::Broken {
            retry_at: Duration::ZERO,
            attempts: 0,
        };
        let mut producer = self
            .log
            .producer(&self.settings.name, self.settings.transactional_id.as_deref())?;
        producer.init(self.settings.transaction_timeout)?;
        self.out_partitions = producer.prepare(self.topics.out())?;
        self.writer = Writer::Ready(producer);
        self.transaction_open = false;
        info!(worker = %self.settings.name, "producer ready");
        Ok(())
    }
}

fn changelog_partitions(topics: &super::topics::Topics, task: TaskId) -> Vec<TopicPartition> {
    let names = topics.out();
    let partition =
        |topic: &crate::log::OutTopic| TopicPartition::new(Arc::clone(&names[topic.0 as usize]), task.partition);
    topics.changelogs(task.sub_topology).iter().map(partition).collect()
}
