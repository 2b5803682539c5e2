//! What a worker does about tasks that run before all files of their state are here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::errors::Coded;
use crate::ids::TaskId;
use crate::state::{StateBackend, StateError, StateResult};
use crate::time::Clock;

use super::background::{Chore, Done, Lane};
use super::error::WorkerError;
use super::held::{CancelOnDrop, CountedAsLacking, LazyFiles};
use super::metrics::{RestoreUnit, WorkerMetrics};
use super::restore_pace::RestorePace;
use super::worker::{Phase, Worker};

/// The log says this often that files do not come.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Fetches what a database lacks.
struct FetchChore {
    task: TaskId,
    ticket: u64,
    backend: Arc<dyn StateBackend>,
    cancelled: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    began: Duration,
    warned_at: Option<Duration>,
    pace: RestorePace,
}

impl FetchChore {
    fn fetch(&mut self) -> StateResult<bool> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let now = self.clock.monotonic();
        let lacking = match self.backend.fetch_some() {
            Err(error @ StateError::Lacking { .. }) => {
                if self.warned_at.is_none_or(|at| now.saturating_sub(at) >= WARN_INTERVAL) {
                    self.warned_at = Some(now);
                    warn!(task = %self.task, code = error.code(), %error, "files of the state do not come");
                }
                return Ok(false);
            }
            fetched => fetched?,
        };
        self.pace.report(
            self.clock.monotonic(),
            lacking.of_bytes - lacking.bytes,
            lacking.of_bytes,
        );
        if lacking.files > 0 {
            return Ok(false);
        }
        let took = self.clock.monotonic().saturating_sub(self.began);
        info!(task = %self.task, bytes = lacking.of_bytes, took_ms = took.as_millis(), "all files of the state are here");
        Ok(true)
    }
}

impl Chore for FetchChore {
    fn step(&mut self) -> Option<Done> {
        let result = match self.fetch() {
            Ok(false) => return None,
            outcome => outcome.map(drop),
        };
        Some(Done::Fetched {
            task: self.task,
            ticket: self.ticket,
            result,
        })
    }
}

impl Worker {
    /// Has the files fetched that a database lacks; `None` where it lacks nothing.
    pub(super) fn fetch_lacking(&mut self, task: TaskId, backend: &Arc<dyn StateBackend>) -> Option<LazyFiles> {
        let lacking = backend.lacking();
        if lacking.files == 0 {
            return None;
        }
        info!(%task, files = lacking.files, bytes = lacking.bytes, "the task runs while files of its state are coming");
        self.tickets += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let metrics: &Arc<WorkerMetrics> = &self.metrics;
        let now = self.clock.monotonic();
        let chore = FetchChore {
            task,
            ticket: self.tickets,
            backend: Arc::clone(backend),
            cancelled: Arc::clone(&cancelled),
            clock: Arc::clone(&self.clock),
            began: now,
            warned_at: None,
            pace: RestorePace::begin(task, RestoreUnit::Bytes, metrics, now),
        };
        self.background.run(Lane::Fetch, Box::new(chore));
        Some(LazyFiles {
            ticket: self.tickets,
            _cancelled: CancelOnDrop(cancelled),
            _counted: CountedAsLacking::begin(metrics),
        })
    }

    pub(super) fn take_fetched(
        &mut self,
        task: TaskId,
        ticket: u64,
        result: StateResult<()>,
    ) -> Result<(), WorkerError> {
        let Some(running) = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut()) else {
            return Ok(());
        };
        if running.lazy.as_ref().is_none_or(|lazy| lazy.ticket != ticket) {
            return Ok(());
        }
        running.lazy = None;
        Ok(result?)
    }

    /// A read needs a file that does not come, or that cannot be had: the epoch is redone from the committed cut, where the task is
    /// opened anew.
    pub(super) fn lacks_a_file(&mut self, error: &StateError) -> Result<(), WorkerError> {
        warn!(worker = %self.settings.name, code = error.code(), %error, "a read needs a file that is not here");
        self.metrics.aborts.add(1);
        let phase = self.committing.as_ref().map(|committing| &committing.phase);
        // What was handed to the producer may commit all the same: its outcome is read back.
        let is_sent = matches!(phase, Some(Phase::Sent));
        self.roll_back(&error.to_string(), is_sent)
    }
}
