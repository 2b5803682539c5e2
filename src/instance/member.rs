//! The membership loop: serves the group's events, and keeps workers in step with them (design §7, invariant I6).
//!
//! It has no thread and never waits for a worker: whoever runs it calls [`Member::step`] again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{info, warn};

use crate::ids::{TaskId, TopicPartition};
use crate::log::{GroupMetadata, GroupView, LogError, LogResult, MemberEvent};
use crate::membership::{Distribution, Leads};
use crate::time::Clock;
use crate::worker::Command;

use super::error::InstanceError;
use super::instance::Shared;
use super::orphans::OrphanWatch;
use super::purge::Purge;
use super::seat::Seat;
use super::settings::InstanceSettings;

/// Longest look at the group while workers close tasks.
const CLOSING_POLL: Duration = Duration::from_millis(2);
/// Time that closing takes beyond the commit.
const CLOSING_GRACE: Duration = Duration::from_secs(5);

/// A worker's name and the way to it.
pub(super) struct WorkerLink {
    pub(super) name: String,
    pub(super) commands: Sender<Command>,
}

/// An event that is completed when the workers have closed what it takes away.
struct Closing {
    event: MemberEvent,
    waiting: Vec<Receiver<()>>,
    deadline: Duration,
}

/// What a member is made of.
pub(super) struct MemberParts {
    pub(super) seat: Seat,
    pub(super) leads: Leads,
    pub(super) workers: Vec<WorkerLink>,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: InstanceSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) purge: Purge,
    /// Of a static member only: the group makes up for a dynamic one that goes.
    pub(super) orphans: Option<OrphanWatch>,
}

/// The loop's state.
pub(super) struct Member {
    seat: Seat,
    view: Arc<dyn GroupView>,
    leads: Leads,
    distribution: Distribution,
    workers: Vec<WorkerLink>,
    shared: Arc<Shared>,
    settings: InstanceSettings,
    clock: Arc<dyn Clock>,
    purge: Purge,
    orphans: Option<OrphanWatch>,
    closing: Option<Closing>,
}

impl Member {
    pub(super) fn new(parts: MemberParts) -> Self {
        Self {
            view: parts.seat.view(),
            seat: parts.seat,
            leads: parts.leads,
            distribution: Distribution::new(parts.workers.len()),
            workers: parts.workers,
            shared: parts.shared,
            settings: parts.settings,
            clock: parts.clock,
            purge: parts.purge,
            orphans: parts.orphans,
            closing: None,
        }
    }

    /// Serves what the group says; waits for that at most `wait`.
    ///
    /// # Errors
    /// The instance must stop.
    pub(super) fn step(&mut self, wait: Duration) -> Result<(), InstanceError> {
        if let Some(orphans) = &mut self.orphans {
            orphans.step(self.clock.monotonic(), &self.shared.metrics.rebalances_forced);
        }
        let served = match self.closing.is_some() {
            true => self.go_on_closing(wait.min(CLOSING_POLL)),
            false => self.serve_next(wait),
        };
        match served {
            Ok(()) => {}
            Err(LogError::NotAMember { .. }) if self.settings.instance_id.is_some() => self.fenced()?,
            Err(error @ (LogError::Unreachable { .. } | LogError::TimedOut { .. } | LogError::NotAMember { .. })) => {
                tracing::debug!(%error, "membership");
            }
            Err(error) => return Err(InstanceError::Log(error)),
        }
        self.purge.step();
        Ok(())
    }

    fn serve_next(&mut self, wait: Duration) -> LogResult<()> {
        let Some(event) = self.seat.member().poll(wait)? else {
            return Ok(());
        };
        match &event {
            MemberEvent::Assigned(partitions) => {
                self.assigned(partitions, &event)?;
                self.event_served();
                Ok(())
            }
            MemberEvent::Revoked(partitions) => {
                let tasks = self.leads.tasks(partitions);
                self.give_up(&tasks, event, false);
                self.go_on_closing(Duration::ZERO)
            }
            MemberEvent::Lost(partitions) => {
                let tasks = self.leads.tasks(partitions);
                self.give_up(&tasks, event, true);
                self.go_on_closing(Duration::ZERO)
            }
        }
    }

    fn event_served(&mut self) {
        if let Some(orphans) = &mut self.orphans {
            orphans.event_served(self.clock.monotonic());
        }
    }

    /// Somebody with this instance's static identity has joined: all tasks are lost. The identity is claimed once more; if it
    /// is taken again soon, it is another process's.
    fn fenced(&mut self) -> Result<(), InstanceError> {
        self.shared.metrics.members_fenced.add(1);
        if self.seat.has_rival(self.clock.monotonic()) {
            let instance_id = self.settings.instance_id.clone().unwrap_or_default();
            return Err(InstanceError::InstanceIdTaken { instance_id });
        }
        self.closing = None;
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

    /// Takes tasks from the workers; the event is completed when they have closed them, or cannot be waited for any longer.
    fn give_up(&mut self, tasks: &[TaskId], event: MemberEvent, lost: bool) {
        let group = self.view.metadata();
        info!(generation = group.generation, tasks = %list(tasks), lost, "tasks taken away");
        let within = self.settings.revoke_timeout;
        let mut waiting = Vec::new();
        for (worker, tasks) in self.distribution.remove(tasks).into_iter().enumerate() {
            let group = group.clone();
            if tasks.is_empty() {
                self.tell(worker, Command::Served { group });
                continue;
            }
            let (done, closed) = bounded(1);
            let command = match lost {
                true => Command::Lose { tasks, group, done },
                false => Command::Revoke {
                    tasks,
                    group,
                    within,
                    done,
                },
            };
            self.tell(worker, command);
            waiting.push(closed);
        }
        self.closing = Some(Closing {
            event,
            waiting,
            deadline: self.clock.monotonic() + within + CLOSING_GRACE,
        });
    }

    fn go_on_closing(&mut self, wait: Duration) -> LogResult<()> {
        let Some(closing) = &mut self.closing else {
            return Ok(());
        };
        closing.waiting.retain(is_open);
        if !closing.waiting.is_empty() && self.clock.monotonic() < closing.deadline {
            // The client must be polled to stay in the group; it reports nothing new before this event is completed.
            return self.seat.member().poll(wait).map(drop);
        }
        let Some(closing) = self.closing.take() else {
            return Ok(());
        };
        self.seat.member().complete(&closing.event)?;
        self.serve_generation(&self.view.metadata());
        self.event_served();
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

    /// Asks every worker to commit, to close its tasks and to end.
    pub(super) fn stop_workers(&self) {
        for worker in 0..self.workers.len() {
            let within = self.settings.revoke_timeout;
            self.tell(worker, Command::Stop { within });
        }
    }

    /// Stays in the group while workers end, so that their last commits count; waits at most `wait`.
    pub(super) fn stay(&mut self, wait: Duration) {
        let _ = self.seat.member().poll(wait);
    }

    /// Leaves the group. The workers have ended.
    pub(super) fn leave(mut self) {
        if let Some(closing) = self.closing.take() {
            let _ = self.seat.member().complete(&closing.event);
        }
        self.seat.leave();
    }
}

/// Whether whoever holds the other end has neither answered nor gone.
fn is_open(closed: &Receiver<()>) -> bool {
    matches!(closed.try_recv(), Err(crossbeam_channel::TryRecvError::Empty))
}

fn list(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(" ")
}
