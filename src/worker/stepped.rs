//! Work beside a worker without threads: somebody else decides how far it is at each look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::TaskId;

use super::background::{ApplyJob, Background, Chore, Done, LANES, Lane};
use super::opener::Opener;
use super::opening::{Begun, OpenRequest, Stage};

/// Whether a job that waits has its turn now.
pub type Turns = Arc<dyn Fn() -> bool + Send + Sync>;

/// A task on its way.
enum Way {
    Requested(OpenRequest),
    Underway(Box<dyn Stage>),
}

/// A background for tests and simulation: jobs go on while the worker looks or waits for what has ended, as [`Turns`] lets them.
pub struct Stepped {
    opener: Arc<Opener>,
    turns: Turns,
    applies: VecDeque<ApplyJob>,
    opens: Vec<(TaskId, u64, Option<Way>)>,
    /// By lane.
    chores: [VecDeque<Box<dyn Chore>>; LANES.len()],
    done: VecDeque<Done>,
}

impl Stepped {
    /// A background without threads.
    pub fn new(opener: Arc<Opener>, turns: Turns) -> Self {
        Self {
            opener,
            turns,
            applies: VecDeque::new(),
            opens: Vec::new(),
            chores: Default::default(),
            done: VecDeque::new(),
        }
    }

    fn apply_next(&mut self) {
        let Some(job) = self.applies.pop_front() else { return };
        let result = job.backend.apply(&*job.increment, &job.meta);
        self.done.push_back(Done::Applied {
            task: job.task,
            epoch: job.meta.epoch,
            took: Duration::ZERO,
            result,
        });
    }

    fn open_step(&mut self, index: usize) {
        let (task, ticket, way) = &mut self.opens[index];
        let begun = match way.take() {
            Some(Way::Requested(request)) => Some(self.opener.begin(request)),
            Some(Way::Underway(mut stage)) => {
                let outcome = stage.step();
                if outcome.is_none() {
                    *way = Some(Way::Underway(stage));
                }
                outcome
            }
            None => None,
        };
        let outcome = match begun {
            Some(Ok(Begun::Opened(opened))) => Some(Ok(*opened)),
            Some(Ok(Begun::Underway(stage))) => {
                *way = Some(Way::Underway(stage));
                None
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        if let Some(result) = outcome {
            let (task, ticket) = (*task, *ticket);
            self.opens.remove(index);
            let result = Box::new(result);
            self.done.push_back(Done::Opened { task, ticket, result });
        }
    }
}

impl Stepped {
    fn chore_step(&mut self, lane: usize) {
        let Some(chore) = self.chores[lane].front_mut() else {
            return;
        };
        match chore.step() {
            Some(outcome) => {
                self.chores[lane].pop_front();
                self.done.push_back(outcome);
            }
            None if lane == Lane::Fetch as usize => self.chores[lane].rotate_left(1),
            None => {}
        }
    }
}

impl Background for Stepped {
    fn apply(&mut self, job: ApplyJob) {
        self.applies.push_back(job);
    }

    fn open(&mut self, request: OpenRequest, ticket: u64) {
        self.opens.push((request.task, ticket, Some(Way::Requested(request))));
    }

    fn run(&mut self, lane: Lane, chore: Box<dyn Chore>) {
        self.chores[lane as usize].push_back(chore);
    }

    fn poll(&mut self) -> Option<Done> {
        if self.done.is_empty() {
            if (self.turns)() {
                self.apply_next();
            }
            for lane in 0..self.chores.len() {
                // Nobody's turn is asked for where there is nothing to do, so that simulations without snapshots stay as they are.
                if !self.chores[lane].is_empty() && (self.turns)() {
                    self.chore_step(lane);
                }
            }
            for index in (0..self.opens.len()).rev() {
                if (self.turns)() {
                    self.open_step(index);
                }
            }
        }
        self.done.pop_front()
    }

    fn wait(&mut self, _wait: Duration) -> Option<Done> {
        self.poll()
    }
}
