//! The thread that leads a producer through its transactions, as whoever calls it sees it.
//!
//! What has no deadline of its own, as asking for the address of a host, is watched from outside: a job that overruns counts as
//! timed out, and whatever it still reaches a broker with is fenced by the next producer of the same id.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::super::deadline::Deadline;
use super::Shared;
use super::transaction::Steps;
use crate::log::{Commit, LogError, LogResult};

/// How much later than its deadline a job may tell its own outcome, which says more.
const OVERRUN: Duration = Duration::from_millis(250);

/// What the thread is asked to do.
pub(super) enum Task {
    Init,
    Prepare(Vec<Arc<str>>),
    Commit(Commit),
    Abort,
}

/// Why it was not done.
#[derive(Debug)]
pub(super) enum Failure {
    Log(LogError),
    /// The brokers do not speak what this producer needs.
    Unsuitable(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Partition counts, where topics were asked for.
pub(super) type Outcome = Result<Vec<i32>, Failure>;

/// The caller's end of the thread.
pub(super) struct TransactionThread {
    jobs: Sender<(Task, Deadline)>,
    outcomes: Receiver<Outcome>,
    /// When the running job must have an outcome, and what it is.
    running: Option<(Deadline, &'static str)>,
}

impl TransactionThread {
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (jobs, next_job) = bounded::<(Task, Deadline)>(1);
        let (done, outcomes) = bounded(1);
        let mut steps = Steps::new(shared);
        let run = move || {
            for (task, deadline) in next_job {
                if done.send(steps.run(task, &deadline)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name(format!("{}-commit", shared.name))
            .spawn(run)?;
        Ok(Self {
            jobs,
            outcomes,
            running: None,
        })
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a job; `operation` says what it is in the error of one that overruns.
    pub fn begin(&mut self, task: Task, timeout: Duration, operation: &'static str) -> LogResult<()> {
        let latest = Deadline::after(timeout.saturating_add(OVERRUN));
        let sent = self.jobs.try_send((task, Deadline::after(timeout)));
        sent.map_err(|_| ended())?;
        self.running = Some((latest, operation));
        Ok(())
    }

    /// The outcome of the running job, waiting for it at most `wait`.
    pub fn poll(&mut self, wait: Duration) -> Option<Outcome> {
        let (deadline, operation) = self.running?;
        let outcome = match self.outcomes.recv_timeout(wait.min(deadline.remaining())) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) if deadline.is_over() => Err(deadline.timed_out(operation).into()),
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(ended().into()),
        };
        self.running = None;
        Some(outcome)
    }

    /// Does a job and waits for its outcome.
    pub fn finish(&mut self, task: Task, timeout: Duration, operation: &'static str) -> Outcome {
        self.begin(task, timeout, operation)?;
        loop {
            if let Some(outcome) = self.poll(Duration::MAX) {
                return outcome;
            }
        }
    }
}

fn ended() -> LogError {
    LogError::Fatal {
        operation: "leading a transaction".to_owned(),
        reason: "the thread that does has ended".to_owned(),
    }
}
