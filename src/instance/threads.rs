//! An instance on threads: one for each worker, and one for the membership loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::worker::{Turn, Worker};

use super::error::InstanceError;
use super::instance::Shared;
use super::member::Member;

/// Longest look at the group.
const POLL: Duration = Duration::from_millis(50);
/// The same while workers end.
const ENDING_POLL: Duration = Duration::from_millis(5);

/// A worker's thread.
pub(super) struct WorkerThread {
    name: String,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Starts a worker.
    ///
    /// # Errors
    /// [`InstanceError::Thread`] where the system gives none.
    pub(super) fn start(name: &str, worker: Worker, shared: &Arc<Shared>) -> Result<Self, InstanceError> {
        let shared = Arc::clone(shared);
        let thread = start(name, move || run_worker(worker, &shared))?;
        Ok(Self {
            name: name.to_owned(),
            thread,
        })
    }
}

/// Starts a thread.
///
/// # Errors
/// [`InstanceError::Thread`] where the system gives none.
pub(super) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, InstanceError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| failed(name, error.to_string()))
}

/// The error of a thread.
pub(super) fn failed(thread: &str, reason: String) -> InstanceError {
    InstanceError::Thread {
        thread: thread.to_owned(),
        reason,
    }
}

fn run_worker(mut worker: Worker, shared: &Shared) {
    loop {
        match worker.turn() {
            Ok(Turn::Again) => {}
            Ok(Turn::Stopped) => return,
            Err(error) => return shared.fail(InstanceError::Worker(error)),
        }
    }
}

/// Runs the membership loop until the instance is told to stop or fails; then closes everything.
pub(super) fn run_member(mut member: Member, workers: Vec<WorkerThread>, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        // A worker that fails says so itself before its thread ends.
        let ended = workers.iter().find(|worker| worker.thread.is_finished());
        if let Some(ended) = ended
            && !shared.stop.load(Ordering::SeqCst)
        {
            shared.fail(failed(&ended.name, "it ended without a reason; see the log".to_owned()));
        }
        if let Err(error) = member.step(POLL) {
            shared.fail(error);
        }
    }
    member.stop_workers();
    for worker in workers {
        while !worker.thread.is_finished() {
            member.stay(ENDING_POLL);
        }
        if worker.thread.join().is_err() {
            shared.fail(failed(&worker.name, "it panicked; see the log".to_owned()));
        }
    }
    member.leave();
    shared.finished.store(true, Ordering::SeqCst);
}
