//! Work beside a worker without threads: somebody else decides how far it is at each look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::TaskId;

use super::background::{ApplyJob, Background, Done};
use super::opening::{Begun, NotOpened, OpenRequest, Opened, Opener};
use super::replay::Replay;

/// Whether a job that waits has its turn now.
pub type Turns = Arc<dyn Fn() -> bool + Send + Sync>;

/// A task on its way.
enum Way {
    Requested(OpenRequest),
    Replaying(Box<Replay>),
}

/// A background for tests and simulation: jobs go on while the worker looks or waits for what has ended, as [`Turns`] lets them.
pub struct Stepped {
    opener: Arc<Opener>,
    turns: Turns,
    applies: VecDeque<ApplyJob>,
    opens: Vec<(TaskId, u64, Option<Way>)>,
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
        let outcome = match way.take() {
            Some(Way::Requested(request)) => begin(&self.opener, request, way),
            Some(Way::Replaying(mut replay)) => {
                let outcome = replay.step();
                *way = outcome.is_none().then_some(Way::Replaying(replay));
                outcome
            }
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

fn begin(opener: &Arc<Opener>, request: OpenRequest, way: &mut Option<Way>) -> Option<Result<Opened, NotOpened>> {
    match opener.begin(request) {
        Ok(Begun::Opened(opened)) => Some(Ok(opened)),
        Ok(Begun::Replaying(replay)) => {
            *way = Some(Way::Replaying(replay));
            None
        }
        Err(error) => Some(Err(error)),
    }
}

impl Background for Stepped {
    fn apply(&mut self, job: ApplyJob) {
        self.applies.push_back(job);
    }

    fn open(&mut self, request: OpenRequest, ticket: u64) {
        self.opens.push((request.task, ticket, Some(Way::Requested(request))));
    }

    fn poll(&mut self) -> Option<Done> {
        if self.done.is_empty() {
            if (self.turns)() {
                self.apply_next();
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
