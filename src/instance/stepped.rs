//! An instance without threads: whoever holds it makes each of its steps. For tests and simulation; it is the same
//! membership loop and the same workers as on threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::log::Log;
use crate::time::Clock;
use crate::topology::Topology;
use crate::worker::{Background, Inline, Turn, Worker, WorkerMetrics};

use super::assembly::{Assembly, Means};
use super::error::InstanceError;
use super::instance::{Shared, Status};
use super::member::Member;
use super::purge::Place;
use super::settings::InstanceSettings;

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
    /// Checks topics and plan and joins the group, as [`super::Instance::start`] does. `random` makes names; it should give
    /// other numbers for each instance.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn start(
        topology: Arc<Topology>,
        settings: InstanceSettings,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Result<Self, InstanceError> {
        let means = Means {
            background: &|_, opener, _| Ok(Box::new(Inline::new(Arc::clone(opener))) as Box<dyn Background>),
            random,
            purge: Place::Here,
        };
        let assembly = Assembly::of(topology, settings, log, clock, &means)?;
        Ok(Self {
            member: Some(assembly.member),
            workers: assembly.workers.into_iter().map(|(_, worker)| Some(worker)).collect(),
            shared: assembly.shared,
            stopping: false,
        })
    }

    /// One step of the membership loop and one turn of each worker.
    ///
    /// # Errors
    /// [`InstanceError`]: it must be dropped.
    pub fn step(&mut self) -> Result<(), InstanceError> {
        self.step_member()?;
        for slot in &mut self.workers {
            if let Some(worker) = slot
                && worker.turn()? == Turn::Stopped
            {
                *slot = None;
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

    /// The first `parts` of a step: the membership loop, then one worker each. For crashes in the midst of one; failures do
    /// not matter any more. Answers how many there were.
    pub fn step_partly(&mut self, parts: usize) -> usize {
        if parts == 0 || self.step_member().is_err() {
            return parts.min(1);
        }
        let turned = self.workers.iter_mut().flatten().take(parts - 1);
        1 + turned.map_while(|worker| worker.turn().ok()).count()
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
