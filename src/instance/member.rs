//! The membership loop: serves the group's events, and keeps workers in step with them (design §7, invariant I6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{info, warn};

use crate::ids::{TaskId, TopicPartition};
use crate::log::{GroupMetadata, GroupView, Log, LogError, LogResult, MemberEvent};
use crate::membership::{Distribution, Leads};
use crate::time::Clock;
use crate::worker::Command;

use super::error::InstanceError;
use super::instance::{Shared, worker_vanished};
use super::orphans::OrphanWatch;
use super::seat::Seat;
use super::settings::InstanceSettings;

const POLL: Duration = Duration::from_millis(50);
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that closing takes beyond the commit.
const CLOSING_GRACE: Duration = Duration::from_secs(5);

/// A worker's thread and the way to it.
pub(super) struct WorkerHandle {
    pub(super) name: String,
    pub(super) commands: Sender<Command>,
    pub(super) thread: Option<JoinHandle<()>>,
}

/// The loop's state.
pub(super) struct Member {
    seat: Seat,
    view: Arc<dyn GroupView>,
    leads: Leads,
    distribution: Distribution,
    workers: Vec<WorkerHandle>,
    shared: Arc<Shared>,
    settings: InstanceSettings,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    purgeable: Receiver<(TopicPartition, i64)>,
    purge: BTreeMap<TopicPartition, i64>,
    purged_at: Duration,
    /// Of a static member only: the group makes up for a dynamic one that goes.
    orphans: Option<OrphanWatch>,
}

impl Member {
    #[allow(clippy::too_many_arguments)] // The one caller names them all; a struct would only repeat the fields.
    pub(super) fn new(
        seat: Seat,
        leads: Leads,
        workers: Vec<WorkerHandle>,
        shared: Arc<Shared>,
        settings: InstanceSettings,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        purgeable: Receiver<(TopicPartition, i64)>,
        orphans: Option<OrphanWatch>,
    ) -> Self {
        Self {
            view: seat.view(),
            seat,
            leads,
            distribution: Distribution::new(workers.len()),
            workers,
            shared,
            settings,
            log,
            purged_at: clock.monotonic(),
            clock,
            purgeable,
            purge: BTreeMap::new(),
            orphans,
        }
    }

    /// Runs until the instance is told to stop or fails; then closes everything.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            if let Err(error) = self.step() {
                self.shared.fail(error);
            }
        }
        self.close();
    }

    fn step(&mut self) -> Result<(), InstanceError> {
        if let Some(ended) = self
            .workers
            .iter()
            .find(|worker| worker.thread.as_ref().is_none_or(JoinHandle::is_finished))
        {
            // A worker that fails says so itself before its thread ends.
            return if self.shared.stop.load(Ordering::SeqCst) {
                Ok(())
            } else {
                Err(worker_vanished(&ended.name))
            };
        }
        if let Some(orphans) = &mut self.orphans {
            orphans.step(self.clock.monotonic(), &self.shared.metrics.rebalances_forced);
        }
        match self.serve_next() {
            Ok(()) => {}
            Err(LogError::NotAMember { .. }) if self.settings.instance_id.is_some() => self.fenced()?,
            Err(error @ (LogError::Unreachable { .. } | LogError::TimedOut { .. } | LogError::NotAMember { .. })) => {
                tracing::debug!(%error, "membership");
            }
            Err(error) => return Err(InstanceError::Log(error)),
        }
        self.purge_repartitions();
        Ok(())
    }

    fn serve_next(&mut self) -> LogResult<()> {
        let Some(event) = self.seat.member().poll(POLL)? else {
            return Ok(());
        };
        match &event {
            MemberEvent::Assigned(partitions) => self.assigned(partitions, &event)?,
            MemberEvent::Revoked(partitions) => self.given_up(partitions, &event, false)?,
            MemberEvent::Lost(partitions) => self.given_up(partitions, &event, true)?,
        }
        if let Some(orphans) = &mut self.orphans {
            orphans.event_served(self.clock.monotonic());
        }
        Ok(())
    }

    /// Somebody with this instance's static identity has joined: all tasks are lost. The identity is claimed once more; if it
    /// is taken again soon, it is another process's.
    fn fenced(&mut self) -> Result<(), InstanceError> {
        self.shared.metrics.members_fenced.add(1);
        if self.seat.has_rival(self.clock.monotonic()) {
            let instance_id = self.settings.instance_id.clone().unwrap_or_default();
            return Err(InstanceError::InstanceIdTaken { instance_id });
        }
        self.shared.joined.store(false, Ordering::SeqCst);
        self.seat.take_again().map_err(InstanceError::Log)?;
        let lost = self.distribution.all();
        info!(tasks = %list(&lost), "tasks lost");
        let group = self.view.metadata();
        for (worker, tasks) in self.distribution.remove(&lost).into_iter().enumerate() {
            // Nobody waits for it: a worker takes commands in order, so the tasks are closed before they can come back.
            let (done, _) = bounded(1);
            let group = group.clone();
            self.tell(worker, Command::Lose { tasks, group, done });
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[TopicPartition], event: &MemberEvent) -> LogResult<()> {
        let tasks = self.leads.tasks(partitions);
        self.seat.member().complete(event)?;
        let group = self.view.metadata();
        info!(generation = group.generation, tasks = %list(&tasks), "tasks assigned");
        for (worker, tasks) in self.distribution.add(&tasks).into_iter().enumerate() {
            let group = group.clone();
            self.tell(
                worker,
                if tasks.is_empty() {
                    Command::Served { group }
                } else {
                    Command::Assign { tasks, group }
                },
            );
        }
        self.shared.joined.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Takes tasks from the workers, waits for them within the budget, and gives the partitions up.
    fn given_up(&mut self, partitions: &[TopicPartition], event: &MemberEvent, lost: bool) -> LogResult<()> {
        let tasks = self.leads.tasks(partitions);
        let group = self.view.metadata();
        info!(generation = group.generation, tasks = %list(&tasks), lost, "tasks taken away");
        let within = self.settings.revoke_timeout;
        let mut waiting = Vec::new();
        for (worker, tasks) in self.distribution.remove(&tasks).into_iter().enumerate() {
            let group = group.clone();
            if tasks.is_empty() {
                self.tell(worker, Command::Served { group });
                continue;
            }
            let (done, closed) = bounded(1);
            self.tell(
                worker,
                if lost {
                    Command::Lose { tasks, group, done }
                } else {
                    Command::Revoke {
                        tasks,
                        group,
                        within,
                        done,
                    }
                },
            );
            waiting.push(closed);
        }
        let deadline = self.clock.monotonic() + within + CLOSING_GRACE;
        while !waiting.is_empty() && self.clock.monotonic() < deadline && !self.shared.stop.load(Ordering::SeqCst) {
            waiting.retain(is_open);
            // The client must be polled to stay in the group; it reports nothing new before this event is completed.
            let _ = self.seat.member().poll(Duration::from_millis(2));
        }
        self.seat.member().complete(event)?;
        self.serve_generation(&self.view.metadata());
        Ok(())
    }

    fn serve_generation(&self, group: &GroupMetadata) {
        for worker in 0..self.workers.len() {
            self.tell(worker, Command::Served { group: group.clone() });
        }
    }

    fn tell(&self, worker: usize, command: Command) {
        let told = self.workers[worker].commands.send(command);
        if told.is_err() {
            warn!(worker = %self.workers[worker].name, "worker has ended");
        }
    }

    /// Deletes what was consumed of repartition topics, every now and then.
    fn purge_repartitions(&mut self) {
        for (partition, offset) in self.purgeable.try_iter() {
            self.purge.insert(partition, offset);
        }
        let now = self.clock.monotonic();
        if self.purge.is_empty() || now.saturating_sub(self.purged_at) < self.settings.purge_interval {
            return;
        }
        self.purged_at = now;
        let before: Vec<(TopicPartition, i64)> = std::mem::take(&mut self.purge).into_iter().collect();
        let log = Arc::clone(&self.log);
        let purging = std::thread::Builder::new()
            .name("tidegate-purge".into())
            .spawn(move || {
                if let Err(error) = log.admin().delete_records(&before, PURGE_TIMEOUT) {
                    warn!(%error, "consumed records of repartition topics were not purged; trying again later");
                }
            });
        if let Err(error) = purging {
            warn!(%error, "no thread to purge repartition topics");
        }
    }

    fn close(mut self) {
        for worker in 0..self.workers.len() {
            self.tell(
                worker,
                Command::Stop {
                    within: self.settings.revoke_timeout,
                },
            );
        }
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            while !thread.is_finished() {
                let _ = self.seat.member().poll(Duration::from_millis(5)); // stays in the group until the last commit
            }
            if thread.join().is_err() {
                let reason = "it panicked; see the log".to_owned();
                self.shared.fail(InstanceError::Thread {
                    thread: worker.name.clone(),
                    reason,
                });
            }
        }
        self.seat.leave();
        self.shared.finished.store(true, Ordering::SeqCst);
    }
}

/// Whether whoever holds the other end has neither answered nor gone.
fn is_open(closed: &Receiver<()>) -> bool {
    matches!(closed.try_recv(), Err(crossbeam_channel::TryRecvError::Empty))
}

fn list(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(" ")
}
