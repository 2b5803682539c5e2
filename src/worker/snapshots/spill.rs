//! What is done while the object store is away: increments are packed for a spill topic, and the store is tried now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::durability::snapshot::{PackId, SpilledIncrement, pack};
use crate::ids::TaskId;

use super::error::SnapshotError;
use super::persist::PersistTask;
use super::repository::Repository;

/// The increments of one epoch of a worker, to be packed for spill topics.
pub struct SpillJob {
    pub plan: String,
    pub tasks: Vec<PersistTask>,
    pub cancelled: Arc<AtomicBool>,
}

/// Packed increments, each of one task.
pub type Spilled = Vec<(TaskId, SpilledIncrement)>;

/// Packs increments, one task at a step.
pub struct Spill {
    repository: Arc<Repository>,
    job: SpillJob,
    done: Spilled,
}

impl Spill {
    pub fn new(repository: Arc<Repository>, job: SpillJob) -> Self {
        Self {
            repository,
            job,
            done: Vec::new(),
        }
    }

    /// Packs one more; the outcome once there are no more.
    pub fn step(&mut self) -> Option<Result<Spilled, SnapshotError>> {
        if self.job.cancelled.load(Ordering::Relaxed) {
            return Some(Err(SnapshotError::Cancelled));
        }
        let Some(task) = self.job.tasks.pop() else {
            return Some(Ok(std::mem::take(&mut self.done)));
        };
        match pack(&self.job.plan, &[task.increment()]) {
            Ok(bytes) => {
                let attempt = self.repository.attempt();
                let increment = SpilledIncrement::new(task.task, task.meta.epoch, attempt, bytes);
                self.done.push((task.task, increment));
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// One try of the object store: a pack of nothing is written and read back. It is nobody's, and is collected as such.
pub struct Probe {
    repository: Arc<Repository>,
    pack: PackId,
    bytes: Vec<u8>,
    is_written: bool,
    began: Option<Duration>,
}

/// How long a try took that came to something.
pub type Probed = Result<Duration, SnapshotError>;

impl Probe {
    pub fn new(repository: Arc<Repository>, pack: PackId) -> Self {
        Self {
            repository,
            pack,
            bytes: Vec::new(),
            is_written: false,
            began: None,
        }
    }

    /// Writes, then reads back.
    pub fn step(&mut self) -> Option<Probed> {
        let now = self.repository.clock.monotonic();
        let began = *self.began.get_or_insert(now);
        let object = self.pack.object();
        let tried = match self.is_written {
            false => pack("", &[]).map_err(SnapshotError::from).and_then(|bytes| {
                self.bytes = bytes;
                Ok(self.repository.store.create(&object, &self.bytes)?)
            }),
            true => match self.repository.store.read(&object) {
                Ok(bytes) if bytes == self.bytes => {
                    let took = self.repository.clock.monotonic().saturating_sub(began);
                    return Some(Ok(took));
                }
                Ok(_) => Err(SnapshotError::NotAsWritten { object }),
                Err(error) => Err(error.into()),
            },
        };
        self.is_written = true;
        tried.err().map(Err)
    }
}
