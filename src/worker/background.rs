//! Work beside a worker: applying committed epochs, and opening tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::ids::{Epoch, TaskId};
use crate::state::{Overlay, StateBackend, StateMeta, StateResult};
use crate::threads::give_way;
use crate::time::Clock;

use super::opener::Opener;
use super::opening::{NotOpened, OpenRequest, Opened};
use super::savepoints;
use super::snapshots::{Collection, Persisted, Probed, SnapshotError, Snapshotted, Spilled};

/// Threads that open tasks, per worker.
const OPENERS: usize = 4;

/// A committed epoch of one task, to be written to its database.
pub struct ApplyJob {
    /// The task.
    pub task: TaskId,
    /// Its database.
    pub backend: Arc<dyn StateBackend>,
    /// What the epoch wrote.
    pub increment: Arc<Overlay>,
    /// What the database is afterwards.
    pub meta: StateMeta,
}

/// Something that ended.
pub enum Done {
    /// An epoch was applied, or could not be.
    Applied {
        /// The task.
        task: TaskId,
        /// The epoch.
        epoch: Epoch,
        /// How long it took.
        took: Duration,
        /// The outcome.
        result: StateResult<()>,
    },
    /// A task was opened, or could not be.
    Opened {
        /// The task.
        task: TaskId,
        /// The ticket that the request was given.
        ticket: u64,
        /// The outcome.
        result: Box<Result<Opened, NotOpened>>,
    },
    /// The increments of an epoch are stored, or cannot be.
    Persisted {
        /// The ticket that the work was given.
        ticket: u64,
        /// The outcome.
        result: Result<Persisted, SnapshotError>,
    },
    /// The increments of an epoch are packed for the spill topic, or cannot be.
    Spilled {
        /// The ticket that the work was given.
        ticket: u64,
        /// The outcome.
        result: Result<Spilled, SnapshotError>,
    },
    /// The object store was tried.
    Probed {
        /// The ticket that the work was given.
        ticket: u64,
        /// The outcome.
        result: Probed,
    },
    /// A base snapshot was made, or could not be.
    Snapshotted {
        /// The task.
        task: TaskId,
        /// The ticket that the work was given.
        ticket: u64,
        /// The outcome.
        result: Result<Snapshotted, SnapshotError>,
    },
    /// All files of a database are here, or one of them cannot be had.
    Fetched {
        /// The task.
        task: TaskId,
        /// The ticket that the work was given.
        ticket: u64,
        /// The outcome.
        result: StateResult<()>,
    },
    /// What nobody refers to was deleted, or could not be.
    Collected(Result<Collection, SnapshotError>),
    /// What a base snapshot has superseded was deleted, or could not be.
    Retired(Result<Collection, SnapshotError>),
    /// What follows from a change of strategy was looked after.
    Settled,
    /// A step of a savepoint.
    Savepoint(Box<savepoints::Done>),
}

/// Work on the snapshot repository, in steps.
pub trait Chore: Send {
    /// Goes on a little; the outcome at the end.
    fn step(&mut self) -> Option<Done>;
}

/// What a chore waits behind: chores of one lane are done one after the other, but for those that take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What a commit waits for.
    Commit,
    /// What nobody waits for, and what leaves the processor to everything else.
    Idle,
    /// Taking part in savepoints.
    Savepoint,
    /// What a commit waits for while the object store holds the first of these up.
    Spill,
    /// What several tasks wait for: its chores take turns, step by step.
    Fetch,
}

/// All lanes, in the order of their numbers, with their names.
pub(super) const LANES: [&str; 5] = ["commit", "idle", "savepoint", "spill", "fetch"];

/// Runs jobs beside a worker. Epochs are applied in the order in which they are given.
pub trait Background: Send {
    /// Queues an epoch to be applied.
    fn apply(&mut self, job: ApplyJob);
    /// Queues a task to be opened; the ticket comes back with the outcome.
    fn open(&mut self, request: OpenRequest, ticket: u64);
    /// Queues work on the snapshot repository.
    fn run(&mut self, lane: Lane, chore: Box<dyn Chore>);
    /// The next outcome, if there is one.
    fn poll(&mut self) -> Option<Done>;
    /// The next outcome; waits for it at most `wait`.
    fn wait(&mut self, wait: Duration) -> Option<Done>;
}

/// The background of a running instance: one thread that applies, a few that open.
pub struct Threads {
    applies: Option<Sender<ApplyJob>>,
    opens: Option<Sender<(OpenRequest, u64)>>,
    /// By lane.
    chores: [Option<Sender<Box<dyn Chore>>>; LANES.len()],
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts the threads of worker `name`.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn start(name: &str, opener: &Arc<Opener>, clock: &Arc<dyn Clock>) -> std::io::Result<Self> {
        let (apply_sender, apply_receiver) = unbounded::<ApplyJob>(); // bounded by the epochs' apply backlog
        let (open_sender, open_receiver) = unbounded::<(OpenRequest, u64)>(); // at most one entry per task
        let (done_sender, done) = unbounded();
        let mut threads = Vec::new();
        let applier_done = done_sender.clone();
        let applier_clock = Arc::clone(clock);
        let applier = std::thread::Builder::new().name(format!("{name}-apply"));
        threads.push(applier.spawn(move || apply_all(&apply_receiver, &applier_done, &*applier_clock))?);
        for index in 0..OPENERS {
            let (receiver, sender, opener) = (open_receiver.clone(), done_sender.clone(), Arc::clone(opener));
            let thread = std::thread::Builder::new().name(format!("{name}-open-{index}"));
            threads.push(thread.spawn(move || open_all(&receiver, &sender, &opener))?);
        }
        let mut chores = [const { None }; LANES.len()];
        for (lane, name_of_lane) in LANES.into_iter().enumerate() {
            let (sender, receiver) = unbounded::<Box<dyn Chore>>(); // at most one entry per epoch, or per task
            let done = done_sender.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{name_of_lane}"));
            let run = if lane == Lane::Fetch as usize {
                take_turns
            } else {
                run_all
            };
            threads.push(thread.spawn(move || {
                if lane == Lane::Idle as usize {
                    give_way();
                }
                run(&receiver, &done);
            })?);
            chores[lane] = Some(sender);
        }
        Ok(Self {
            applies: Some(apply_sender),
            opens: Some(open_sender),
            chores,
            done,
            threads,
        })
    }
}

fn apply_all(jobs: &Receiver<ApplyJob>, done: &Sender<Done>, clock: &dyn Clock) {
    for job in jobs {
        let started = clock.monotonic();
        let result = job.backend.apply(&*job.increment, &job.meta);
        let ended = Done::Applied {
            task: job.task,
            epoch: job.meta.epoch,
            took: clock.monotonic().saturating_sub(started),
            result,
        };
        drop((job.increment, job.backend));
        if done.send(ended).is_err() {
            return;
        }
    }
}

fn open_all(requests: &Receiver<(OpenRequest, u64)>, done: &Sender<Done>, opener: &Arc<Opener>) {
    for (request, ticket) in requests {
        let task = request.task;
        let result = Box::new(opener.open(request));
        if done.send(Done::Opened { task, ticket, result }).is_err() {
            return;
        }
    }
}

fn run_all(chores: &Receiver<Box<dyn Chore>>, done: &Sender<Done>) {
    for mut chore in chores {
        let outcome = loop {
            if let Some(outcome) = chore.step() {
                break outcome;
            }
        };
        drop(chore);
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Lets each chore go on a little, one after the other, until all have ended.
fn take_turns(chores: &Receiver<Box<dyn Chore>>, done: &Sender<Done>) {
    let mut waiting: VecDeque<Box<dyn Chore>> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match chores.recv() {
                Ok(chore) => waiting.push_back(chore),
                Err(_) => return,
            }
        }
        waiting.extend(chores.try_iter());
        let Some(mut chore) = waiting.pop_front() else { continue };
        match chore.step() {
            None => waiting.push_back(chore),
            Some(outcome) => {
                drop(chore);
                if done.send(outcome).is_err() {
                    return;
                }
            }
        }
    }
}

impl Background for Threads {
    fn apply(&mut self, job: ApplyJob) {
        if let Some(applies) = &self.applies {
            let sent = applies.send(job);
            debug_assert!(sent.is_ok(), "the applier ends only after its channel");
        }
    }

    fn open(&mut self, request: OpenRequest, ticket: u64) {
        if let Some(opens) = &self.opens {
            let sent = opens.send((request, ticket));
            debug_assert!(sent.is_ok(), "the openers end only after their channel");
        }
    }

    fn run(&mut self, lane: Lane, chore: Box<dyn Chore>) {
        if let Some(chores) = &self.chores[lane as usize] {
            let sent = chores.send(chore);
            debug_assert!(sent.is_ok(), "the lanes end only after their channels");
        }
    }

    fn poll(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    fn wait(&mut self, wait: Duration) -> Option<Done> {
        self.done.recv_timeout(wait).ok()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.applies = None;
        self.opens = None;
        self.chores = [const { None }; LANES.len()];
        let (_, closed) = bounded(0);
        self.done = closed;
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "background threads do not panic");
        }
    }
}
