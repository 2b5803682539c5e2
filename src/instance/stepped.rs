//! An instance without threads: whoever holds it makes each of its steps. For tests and simulation; it is the same
//! membership loop and the same workers as on threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ids::TaskId;
use crate::topology::Topology;
use crate::worker::{Background, Stepped, Turn, Turns, Worker, WorkerMetrics};

use super::assembly::{Assembly, Means, Ports};
use super::error::InstanceError;
use super::instance::{Shared, Status};
use super::member::Member;
use super::purge::Place;
use super::settings::InstanceSettings;
use super::states::Disk;

/// What a stepped instance lives in.
pub struct Surroundings {
    /// Log, object store and time.
    pub ports: Ports,
    /// Makes names; should give other numbers for each instance.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// When work beside the workers goes on.
    pub turns: Turns,
    /// What was kept of an earlier start; `None` for an instance that keeps what its settings say.
    pub disk: Option<Disk>,
}

/// An instance that its holder steps, on the holder's thread. Dropping it is a crash: nothing is committed or closed, and the group finds out
/// when the session ends.
pub struct SteppedInstance {
    /// `None` once it has left.
    member: Option<Member>,
    workers: Vec<Option<Worker>>,
    shared: Arc<Shared>,
    stopping: bool,
}

impl SteppedInstance {
    /// Checks topics and plan and joins the group, as [`super::Instance::start`] does.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn start(
        topology: Arc<Topology>,
        settings: InstanceSettings,
        surroundings: Surroundings,
    ) -> Result<Self, InstanceError> {
        let Surroundings {
            ports,
            random,
            turns,
            disk,
        } = surroundings;
        let means = Means {
            background: &move |_, opener, _| {
                let stepped = Stepped::new(Arc::clone(opener), Arc::clone(&turns));
                Ok(Box::new(stepped) as Box<dyn Background>)
            },
            random,
            place: Place::Here,
            disk,
        };
        let assembly = Assembly::of(topology, settings, ports, &means)?;
        Ok(Self {
            member: Some(assembly.member),
            workers: assembly.workers.into_iter().map(|(_, worker)| Some(worker)).collect(),
            shared: assembly.shared,
            stopping: false,
        })
    }

    /// Of how many parts it consists, each of which would be a thread: the membership loop, and one for each worker.
    pub fn parts(&self) -> usize {
        1 + self.workers.len()
    }

    /// One step of a part: the membership loop is the first, the workers follow. One that has ended does nothing.
    ///
    /// # Errors
    /// [`InstanceError`]: the instance must be dropped.
    pub fn step(&mut self, part: usize) -> Result<(), InstanceError> {
        match part.checked_sub(1) {
            None => self.step_member()?,
            Some(worker) => {
                let slot = &mut self.workers[worker];
                if let Some(worker) = slot
                    && worker.turn()? == Turn::Stopped
                {
                    *slot = None;
                }
            }
        }
        if self.stopping
            && self.workers.iter().all(Option::is_none)
            && let Some(member) = self.member.take()
        {
            member.leave();
            self.shared.finished.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The tasks that process records here.
    pub fn running_tasks(&self) -> Vec<TaskId> {
        let workers = self.workers.iter().flatten();
        workers.flat_map(Worker::running_tasks).collect()
    }

    fn step_member(&mut self) -> Result<(), InstanceError> {
        match &mut self.member {
            Some(member) if self.stopping => member.stay(Duration::ZERO),
            Some(member) => member.step(Duration::ZERO)?,
            None => {}
        }
        Ok(())
    }

    /// Asks it to commit, close and leave in the steps that follow.
    pub fn stop(&mut self) {
        if let (false, Some(member)) = (self.stopping, &self.member) {
            self.stopping = true;
            self.shared.stop.store(true, Ordering::SeqCst);
            member.stop_workers();
        }
    }

    /// Whether it has left.
    pub fn is_finished(&self) -> bool {
        self.member.is_none()
    }

    /// Whether it lives and is ready.
    pub fn status(&self) -> Status {
        self.shared.status(!self.is_finished())
    }

    /// The workers' counters.
    pub fn counters(&self) -> Arc<WorkerMetrics> {
        Arc::clone(&self.shared.metrics)
    }
}
